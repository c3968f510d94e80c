"""Tables in Markdown, for every report: what a cell holds is shown and never obeyed."""

from collections.abc import Iterable, Sequence
from typing import Any

_SAFE = (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("[", "\\["))


def markdown_table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table without a line break at its end."""
    lines = [_line(map(escaped, header)), _line(["---"] * len(header))]
    return "\n".join([*lines, *(_line(map(escaped, row)) for row in rows)])


def escaped(value: Any) -> str:
    """Return a value on one line as text that is neither Markdown nor HTML."""
    text = " ".join(str(value).split())
    for sign, safe in _SAFE:
        text = text.replace(sign, safe)
    return text


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
