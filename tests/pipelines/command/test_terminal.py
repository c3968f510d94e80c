"""Text for terminals: aligned, and nothing in it that a terminal obeys."""

import pytest

from pipelines.command.terminal import Style, clean, columns, meter, shade, width_of


@pytest.mark.parametrize("text", ["\x1b[2J", "\x1b]0;t\x07", "a\rb", "\x9b31m", "\u202eabc", "\n"])
def test_control_characters_go(text):
    assert "?" in clean(text)
    assert not any(c in clean(text) for c in "\x1b\x07\r\n\x9b\u202e")


def test_words_stay():
    assert clean("caf\u00e9 \u661f\u8fb0\u9ed1 <b>") == "caf\u00e9 \u661f\u8fb0\u9ed1 <b>"


def test_colours_only_where_wanted():
    assert Style(False).marked("red", 3) == "[red]"
    assert "\x1b[" in Style(True).marked("red", 3)
    assert Style.of("always").is_coloured
    assert not Style.of("never").is_coloured


def test_columns_align_wide_characters():
    lines = columns([("\u9ed1", "x"), ("ab", Style(True).bold("y")), ("a", "z")], indent=0)
    assert [width_of(line) for line in lines] == [5, 5, 4 + 1]


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_meter_has_one_width(share):
    assert len(meter(share)) == 10


def test_shades_rise():
    assert len({shade(i / 4.01) for i in range(5)}) == 5
