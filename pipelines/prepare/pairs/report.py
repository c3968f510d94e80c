"""What the preparation of pairs did, for people and for programs."""

from collections.abc import Mapping
from typing import Any

from pipelines.command.markdown import markdown_table


def pair_report(
    num_rows: int, counts: Mapping[str, int], groups: Mapping[str, int], *, seconds: float
) -> dict[str, Any]:
    """Return counts by split, by reason and of the duplicate finder."""
    splits = {k.removeprefix("split "): v for k, v in counts.items() if k.startswith("split ")}
    reasons = {k.removeprefix("reason "): v for k, v in counts.items() if k.startswith("reason ")}
    assert sum(splits.values()) + sum(reasons.values()) == num_rows, "every row has one place"
    return {
        "rows_in": num_rows,
        "pairs": dict(sorted(splits.items())),
        "left_out": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "duplicates": dict(groups),
        "preparation_seconds": round(seconds, 1),
    }


def render_pair_report(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = ["# Pairs of text and picture", "", f"{report['rows_in']} rows were read.", ""]
    for title, name in (
        ("split", "pairs"), ("left out because of", "left_out"), ("duplicates", "duplicates"),
    ):  # fmt: skip
        rows = [(key.replace("_", " "), value) for key, value in report[name].items()]
        lines += [markdown_table((title, "rows"), rows), ""]
    return "\n".join(lines)
