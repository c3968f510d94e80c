"""One section of the benchmark: a table for people, figures for programs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

Cell = str | float | int | None


@dataclass
class Section:
    """A table; `figures` go into the JSON file, `notes` below the table."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The section as it is printed."""
        cells = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = ["  ".join(_padded(row, widths)) for row in cells] if self.rows else []
        return "\n".join(["", f"== {self.title}", *lines, *(f"   {note}" for note in self.notes)])

    def document(self) -> dict[str, object]:
        """The section as it is stored."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": self.notes, **self.figures}


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        row[0].ljust(widths[0]),
        *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
    ]


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def rounded(value: object) -> object:
    """A JSON value with four significant digits in every float."""
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.4g}"))
