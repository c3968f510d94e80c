"""The sections of the report page that are numbers: summary, coverage, drift, reasons, quality."""

from typing import Any

from pipelines.evaluate.quality import Quality
from pipelines.report import charts
from pipelines.report.catalog_numbers import CatalogNumbers
from pipelines.report.grid import grid, number, percent, verdict_mark
from pipelines.report.markup import Markup, joined, tag
from pipelines.report.page import Section

_MAX_ROWS = 60
_STATUS_TEXT = {
    "ok": "text and picture read",
    "degraded": "read from the text alone",
    "quarantined": "nothing usable",
    "vanished": "gone from the catalogue",
}
_RUN_COUNTS = {
    "rows_in": "Rows in",
    "rows_extracted": "Extracted",
    "rows_unchanged": "Unchanged",
    "rows_vanished": "Vanished",
    "rows_quarantine_table": "Quarantine",
    "seconds": "Seconds",
    "products_per_second": "Products/s",
}


def number_sections(catalog: CatalogNumbers) -> list[Section]:
    """Return every section that has something to say."""
    sections = [Section("summary", "Summary", _summary(catalog))]
    if catalog.runs:
        sections.append(Section("runs", "Runs", _runs(catalog)))
    sections.append(Section("coverage", "Coverage", _coverage(catalog)))
    if catalog.drift is not None:
        sections.append(Section("drift", "Drift", _drift(catalog)))
    sections.append(Section("confidence", "Confidence", _confidence(catalog)))
    if catalog.quality is not None:
        sections.append(Section("quality", "Quality", _quality(catalog.quality)))
    sections.append(Section("reasons", "Reasons", _reasons(catalog)))
    return sections


def _summary(catalog: CatalogNumbers) -> Markup:
    counts = {row["status"]: row for row in catalog.summary.iter_rows(named=True)}
    num_values = sum(row["values"] for name, row in counts.items() if name != "vanished")
    per_product = f"{num_values / max(catalog.num_live, 1):.1f} per product"
    tiles = [
        _tile("Products", number(catalog.num_live), "in the catalogue now"),
        _tile(
            "With a value",
            percent(catalog.num_filled / catalog.num_live if catalog.num_live else None),
            f"{number(catalog.num_filled)} products",
        ),
        _tile("Values", number(num_values), per_product),
        _tile("Mean confidence", percent(catalog.mean_confidence), "over all values"),
    ]
    if catalog.quality is not None:
        total = catalog.quality.total
        text = f"on {number(catalog.quality.num_products)} labelled products"
        tiles.append(_tile("TAG-F1", percent(total["f1"]), text))
    for name in ("degraded", "quarantined", "vanished"):
        if name in counts:
            tiles.append(_tile(name.capitalize(), number(counts[name]["products"]),
                               _STATUS_TEXT[name]))  # fmt: skip
    return tag("dl", tiles, class_="tiles")


def _tile(name: str, figure: str, note: str) -> Markup:
    return tag(
        "div", tag("dt", name), tag("dd", figure, class_="big"), tag("dd", note, class_="note"),
        class_="tile",
    )  # fmt: skip


def _runs(catalog: CatalogNumbers) -> Markup:
    header: tuple[str, ...] = ("Run", "State", "Opened", *_RUN_COUNTS.values())
    parts = [grid("Runs, newest first", header, [_run(run) for run in catalog.runs])]
    checks = catalog.runs[0].get("gate") or []
    if checks:
        parts.append(tag("h3", f"Gate of {catalog.runs[0].get('run_id', '')}"))
        header = ("Check", "Verdict", "Found", "Limit", "Note")
        parts.append(grid("Checks of the newest run", header, [_check(check) for check in checks]))
    return joined(*parts)


def _run(run: dict[str, Any]) -> tuple[Any, ...]:
    state = str(run.get("state", ""))
    return (
        str(run.get("run_id", "")),
        tag("span", state, class_=f"state {'good' if state == 'published' else 'bad'}"),
        str(run.get("opened_at", ""))[:16].replace("T", " "),
        *(run.get(name) for name in _RUN_COUNTS),
    )


def _check(check: dict[str, Any]) -> tuple[Any, ...]:
    return (
        str(check.get("name", "")).replace("_", " "),
        verdict_mark(str(check.get("verdict", ""))),
        check.get("found"),
        check.get("limit"),
        str(check.get("note", "")),
    )


def _coverage(catalog: CatalogNumbers) -> Markup:
    rows = [
        (
            row["attribute"],
            charts.bar(row["coverage"]),
            percent(row["coverage"]),
            row["filled"],
            row["distinct_values"],
            percent(row["mean_confidence"]),
        )
        for row in catalog.coverage.head(_MAX_ROWS).iter_rows(named=True)
    ]
    header = ("Attribute", "Share of products", "Coverage", "Products", "Distinct values",
              "Mean confidence")  # fmt: skip
    return joined(
        _lead(f"How many of the {number(catalog.num_live)} products have each attribute."),
        grid("Coverage by attribute", header, rows),
        _more(catalog.coverage.height),
    )


def _drift(catalog: CatalogNumbers) -> Markup:
    assert catalog.drift is not None
    largest = catalog.drift["coverage_change"].abs().max() or 0.0
    rows = [
        (
            row["attribute"],
            charts.shift(row["coverage_change"], largest=float(largest)),  # type: ignore[arg-type]
            f"{100 * row['coverage_change']:+.1f}",
            percent(row["coverage_before"]),
            percent(row["coverage_after"]),
            percent(row["value_shift"]),
            row["new_values"],
            row["lost_values"],
        )
        for row in catalog.drift.head(_MAX_ROWS).iter_rows(named=True)
    ]
    header: tuple[str, ...] = (
        "Attribute", "Change of coverage", "Points", "Before", "After", "Mix shifted by",
        "New values", "Lost values",
    )  # fmt: skip
    parts = [
        _lead(f"Against {catalog.since}: less to the left of the line, more to the right."),
        grid("Drift by attribute", header, rows),
        _more(catalog.drift.height),
    ]
    if catalog.new_values is not None and catalog.new_values.height:
        found = [
            (row["normalized"], row["attribute"], row["count"], percent(row["mean_confidence"]))
            for row in catalog.new_values.iter_rows(named=True)
        ]
        header = ("Value", "Attribute", "Products", "Mean confidence")
        parts.append(tag("h3", "New values"))
        parts.append(grid("Values that were nowhere before", header, found))
    return joined(*parts)


def _confidence(catalog: CatalogNumbers) -> Markup:
    shares: list[float | None] = [None] * 10
    text = "How sure the model is of its values."
    if catalog.quality is not None:
        for row in catalog.quality.reliability.iter_rows(named=True):
            shares[round(row["bin_start"] * 10)] = row["precision"]
        text += " Dots: the share of labelled values in each bin that is right, 0 at the foot."
    label = "Values by confidence: " + ", ".join(
        f"{place / 10:.1f} to {(place + 1) / 10:.1f}: {count}"
        for place, count in enumerate(catalog.histogram)
    )
    return joined(
        _lead(text), charts.histogram(catalog.histogram, label=label, right_shares=shares)
    )


def _quality(quality: Quality) -> Markup:
    total = quality.total
    sources = " and ".join(quality.sources)
    lead = (
        f"Against the gold spans in {sources} of {number(quality.num_products)} products: "
        f"precision {percent(total['precision'])}, recall {percent(total['recall'])}, "
        f"F1 {percent(total['f1'])}."
    )
    parts = [_lead(lead)]
    for caption, name, frame in (
        ("Quality by attribute", "attribute", quality.per_attribute),
        ("Quality by category", "category", quality.per_category),
    ):
        if name == "category" and frame["category"].drop_nulls().is_empty():
            continue
        rows = [_scores(row, name) for row in frame.head(_MAX_ROWS).iter_rows(named=True)]
        header = (name.capitalize(), "F1 as a bar", "F1", "Precision", "Recall", "Gold", "Found")
        parts += [tag("h3", caption), grid(caption, header, rows), _more(frame.height)]
    return joined(*parts)


def _scores(row: dict[str, Any], name: str) -> tuple[Any, ...]:
    figures = (percent(row[figure]) for figure in ("f1", "precision", "recall"))
    return row[name] or "(none)", charts.bar(row["f1"]), *figures, row["gold"], row["predicted"]


def _reasons(catalog: CatalogNumbers) -> Markup:
    rows = [
        (row["reason"], row["kept_in"], row["status"], row["rows"], row["meaning"])
        for row in catalog.reasons.iter_rows(named=True)
    ]
    header = ("Reason", "Kept in", "Status", "Rows", "Meaning")
    return joined(
        _lead("Why products were read from less than they have, or not at all."),
        grid("Reasons", header, rows),
    )


def _lead(text: str) -> Markup:
    return tag("p", text, class_="lead")


def _more(num_rows: int) -> Markup:
    if num_rows <= _MAX_ROWS:
        return Markup("")
    return tag("p", f"The first {_MAX_ROWS} of {number(num_rows)}; jobs/analyze.py lists them all.",
               class_="muted")  # fmt: skip
