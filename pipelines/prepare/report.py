"""The data report: what was read, what became of it, and what to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pipelines.command.markdown import escaped, markdown_table
from pipelines.command.secrets import redact
from pipelines.prepare.compaction import WrittenFile
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.duplicates import Duplicates
from pipelines.prepare.publishing import FORMAT
from pipelines.prepare.shards import Ignored
from pipelines.prepare.tally import Tally, most_frequent
from pipelines.prepare.title_groups import SPLITS

_NUM_ATTRIBUTES_LISTED = 10_000
_NUM_ATTRIBUTES_SHOWN = 50
_NUM_PROBLEMS_SHOWN = 50


def build_report(
    config: PrepareConfig,
    tally: Tally,
    files: Iterable[WrittenFile],
    *,
    split_origin: Mapping[str, str],
    ignored: Ignored,
    duplicates: Duplicates,
) -> dict[str, Any]:
    """Return the report as JSON values."""
    written = list(files)
    return {
        "format": FORMAT,
        "complete": True,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "kind": config.kind,
        "input": redact(config.input),
        "warnings": _warnings(tally, duplicates),
        "rows": _rows(tally),
        "duplicate_ids": duplicates.model_dump(),
        "files_ignored": {"found": ignored.found, "listed": ignored.listed},
        "splits": {split: _split(split, tally, written, split_origin) for split in SPLITS},
        "leaks": {
            "products_by_split": tally.leaks,
            "action": "dropped" if config.drop_leaks else "kept",
        },
        "pictures": _pictures(tally),
        "values": _values(tally),
        "corrections": _corrections(tally),
        "num_attributes": len(tally.attributes),
        "attributes": {
            name: counts.model_dump()
            for name, counts in islice(
                most_frequent(tally.attributes).items(), _NUM_ATTRIBUTES_LISTED
            )
        },
        "problems": {
            "found": tally.num_problems,
            "listed": [note.model_dump() for note in tally.notes],
        },
    }


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return the report for a reader; long lists are cut, report.json has more."""
    rows = report["rows"]
    parts = [
        f"# Prepared products ({report['kind']})",
        f"Made {report['created_at']} from `{report['input']}`.",
        *(f"**Warning:** {escaped(warning)}" for warning in report["warnings"]),
        "## Rows",
        markdown_table(
            ("read", "kept", "dropped", "blank lines", "without any value"),
            [_cells(rows, "read", "kept", "dropped", "blank_lines", "without_gold")],
        ),
        _counts("dropped because", rows["dropped_by_reason"]),
        _duplicates(report["duplicate_ids"]),
        "## Splits",
        _splits(report),
        "## Pictures",
        markdown_table(
            ("named", "used", "products without"),
            [_cells(report["pictures"], "named", "used", "products_without")],
        ),
        _counts("unusable because", report["pictures"]["unusable_by_reason"]),
        "## Values",
        _one_row(report["values"]),
        "## Corrections",
        _one_row(report["corrections"]),
        "## Attributes",
        _attributes(report),
        "## Problems",
        _problems(report["problems"]),
        "## Files that were not read",
        _ignored(report["files_ignored"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _warnings(tally: Tally, duplicates: Duplicates) -> list[str]:
    found = []
    if not tally.kept_by_split.get("train"):
        found.append("train is empty, so nothing can be trained; add rows or use --splits made")
    if duplicates.rows:
        found.append(f"{duplicates.rows} rows repeat the product id of another row; all are kept")
    return found


def _rows(tally: Tally) -> dict[str, Any]:
    return {
        "read": tally.read,
        "kept": tally.kept,
        "dropped": sum(tally.dropped.values()),
        "dropped_by_reason": tally.dropped,
        "blank_lines": tally.blank_lines,
        "without_gold": tally.products_without_gold,
    }


def _pictures(tally: Tally) -> dict[str, Any]:
    return {
        "named": tally.pictures_named,
        "used": tally.pictures_used,
        "unusable_by_reason": tally.pictures_unusable,
        "products_without": tally.without_picture,
    }


def _values(tally: Tally) -> dict[str, int]:
    return {
        "given": tally.values,
        "outside_text": tally.values_outside_text,
        "spans": tally.spans,
        "overlapping_pairs": tally.overlapping_pairs,
        "products_with_overlap": tally.products_with_overlap,
    }


def _corrections(tally: Tally) -> dict[str, int]:
    return {
        "applied": tally.corrections_applied,
        "spans_removed": tally.corrections_removed,
        "spans_added": tally.corrections_added,
        "outside_text": tally.corrections_outside_text,
    }


def _split(
    split: str, tally: Tally, written: list[WrittenFile], origin: Mapping[str, str]
) -> dict[str, Any]:
    files = [file for file in written if file.split == split]
    return {
        "rows": tally.kept_by_split.get(split, 0),
        "origin": origin[split],
        "files": len(files),
        "bytes": sum(file.num_bytes for file in files),
        "row_group_bytes": [size for file in files for size in file.row_group_bytes],
    }


def _splits(report: Mapping[str, Any]) -> str:
    leaks = report["leaks"]
    elsewhere = leaks["products_by_split"]
    rows = [
        (name, *_cells(split, "rows", "origin", "files", "bytes"), elsewhere.get(name, 0))
        for name, split in report["splits"].items()
    ]
    header = ("split", "rows", "origin", "files", "bytes", f"titles elsewhere ({leaks['action']})")
    return markdown_table(header, rows)


def _attributes(report: Mapping[str, Any]) -> str:
    shown = list(report["attributes"].items())[:_NUM_ATTRIBUTES_SHOWN]
    rows = [(name, *counts.values()) for name, counts in shown]
    more = report["num_attributes"] - len(shown)
    table = markdown_table(("attribute", "products", "spans", "outside the text"), rows)
    return table + (f"\n\n{more} more, see report.json." if more else "")


def _problems(problems: Mapping[str, Any]) -> str:
    shown = problems["listed"][:_NUM_PROBLEMS_SHOWN]
    rows = [(f"{note['file']}:{note['line']}", note["reason"], note["detail"]) for note in shown]
    found = f"{problems['found']} found, {len(shown)} shown."
    return f"{found}\n\n{markdown_table(('place', 'reason', 'detail'), rows)}" if rows else found


def _duplicates(ids: Mapping[str, Any]) -> str:
    if not ids["rows"]:
        return ""
    shown = ids["listed"][:_NUM_PROBLEMS_SHOWN]
    table = markdown_table(("repeated product id",), [(name,) for name in shown])
    return f"{ids['rows']} rows repeat one of {ids['ids']} product ids.\n\n{table}"


def _ignored(files: Mapping[str, Any]) -> str:
    shown = files["listed"][:_NUM_PROBLEMS_SHOWN]
    found = f"{files['found']} found, {len(shown)} shown."
    return (
        f"{found}\n\n{markdown_table(('file',), [(name,) for name in shown])}" if shown else found
    )


def _counts(title: str, counts: Mapping[str, int]) -> str:
    return markdown_table((title, "number"), sorted(counts.items())) if counts else ""


def _cells(row: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
    return tuple(row[key] for key in keys)


def _one_row(counts: Mapping[str, int]) -> str:
    return markdown_table(tuple(key.replace("_", " ") for key in counts), [tuple(counts.values())])
