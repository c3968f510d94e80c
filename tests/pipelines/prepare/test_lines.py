from __future__ import annotations

import io

import pytest

from pipelines.prepare.lines import read_lines

TEXT = b"one\r\ntwo\n\nfour four four\nfive"
LINES = [b"one", b"two", b"", b"four four four", b"five"]


@pytest.mark.parametrize("step", range(1, len(TEXT) + 2))
def test_ranges_give_each_line_once(step):
    found = []
    for start in range(0, len(TEXT), step):
        lines = list(read_lines(io.BytesIO(TEXT), start=start, end=start + step, max_bytes=100))
        assert [number for number, _ in lines] == list(range(1, len(lines) + 1))
        found += [line for _, line in lines]
    assert found == LINES


def test_long_lines_are_skipped_whole():
    lines = list(read_lines(io.BytesIO(TEXT), start=0, end=len(TEXT), max_bytes=6))
    assert [line for _, line in lines] == [b"one", b"two", b"", None, b"five"]


def test_an_empty_file_has_no_lines():
    assert list(read_lines(io.BytesIO(b""), start=0, end=10, max_bytes=6)) == []
