"""Tables in Markdown, whatever the cells hold."""

import pytest

from pipelines.command.markdown import escaped, markdown_table


def test_a_table_is_a_header_a_rule_and_a_line_per_row():
    found = markdown_table(("name", "rows"), [("red", 3), ("blue", 0.5)])
    assert found == "| name | rows |\n| --- | --- |\n| red | 3 |\n| blue | 0.5 |"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("&lt;", "&amp;lt;"),
        ("`code`", "\\`code\\`"),
        ("[text](javascript:x)", "\\[text](javascript:x)"),
        ("![picture](http://x)", "!\\[picture](http://x)"),
    ],
)
def test_a_cell_is_shown_and_never_obeyed(hostile, shown):
    assert escaped(hostile) == shown
    assert markdown_table((hostile,), [(hostile,)]).splitlines() == [
        f"| {shown} |", "| --- |", f"| {shown} |",
    ]  # fmt: skip
