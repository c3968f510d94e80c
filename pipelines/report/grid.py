"""Tables of numbers as HTML: header cells, right-aligned figures, a caption for screen readers."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.checks import FAILED, PASSED
from pipelines.report.markup import Markup, tag

PROSE = 30
_FIGURE = re.compile(r"\u2013|[+-]?[\d,.]+%?")


def grid(caption: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """Return a table; the first cell of a row names it, columns of figures align right."""
    rows = list(rows)
    if not rows:
        return tag("p", "None.", class_="muted")
    kinds = [None, *(_kind([row[i] for row in rows]) for i in range(1, len(header)))]
    head = [
        tag("th", name, scope="col", class_=kind) for name, kind in zip(header, kinds, strict=True)
    ]
    parts = (
        tag("caption", caption, class_="hidden"),
        tag("thead", tag("tr", head)),
        tag("tbody", [_body_row(row, kinds[1:]) for row in rows]),
    )
    return tag(
        "div", tag("table", parts), class_="scroll", tabindex="0", role="region", aria_label=caption
    )


def _body_row(row: Sequence[Any], kinds: Sequence[str | None]) -> Markup:
    cells = [tag("td", _text(cell), class_=kind) for cell, kind in zip(row[1:], kinds, strict=True)]
    return tag("tr", tag("th", _text(row[0]), scope="row"), cells)


def verdict_mark(verdict: str) -> Markup:
    """Return the verdict of a gate's check, coloured where it has judged."""
    state = "good" if verdict == PASSED else "bad" if verdict == FAILED else ""
    return tag("span", verdict, class_=f"state {state}".strip())


def percent(share: float | None, *, digits: int = 1) -> str:
    """Return a share as people read it."""
    return "\u2013" if share is None else f"{100 * share:.{digits}f}%"


def number(value: Any) -> str:
    """Return a count or a measure as people read it, or a dash."""
    if value is None or value == "":
        return "\u2013"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _kind(cells: Sequence[Any]) -> str | None:
    """Return what a column holds, as a class: chart, figure, prose (long text) or None."""
    if all(isinstance(cell, Markup) for cell in cells):
        return "chart" if cells[0].startswith("<svg") else None
    if all(cell is None or not isinstance(cell, str) or _FIGURE.fullmatch(cell) for cell in cells):
        return "figure"
    return "prose" if max(len(str(cell)) for cell in cells) > PROSE else None


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else number(cell)
