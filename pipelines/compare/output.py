"""A comparison for people: text for the terminal, or a page with sample cards."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pipelines.checks import FAILED, Check
from pipelines.command.terminal import Style, clean, columns, meter
from pipelines.compare.differences import KINDS, Answers, Comparison
from pipelines.lake.extraction_rows import read_extractions
from pipelines.lake.products import ProductReader
from pipelines.report import charts
from pipelines.report.card import Side, card, with_maps
from pipelines.report.cards import filtered_cards
from pipelines.report.grid import grid, number, percent, verdict_mark
from pipelines.report.markup import Markup, joined, tag
from pipelines.report.model_view import ModelView
from pipelines.report.page import Section, render_page
from ulsdram_core.schema import Product

PICTURE_SIDE = 192
_SAMPLE_LINES = 12


def comparison_text(comparison: Comparison, checks: Sequence[Check], *, style: Style) -> str:
    """Return the comparison for a terminal."""
    before, after = (clean(name) for name in comparison.names)
    lines = [
        style.bold(f"{before} -> {after}"),
        f"  {comparison.num_products:,} products in both, {comparison.num_equal:,} answered alike, "
        f"{comparison.num_only[0]:,} only before, {comparison.num_only[1]:,} only after",
        "  " + ", ".join(f"{kind} {count:,}" for kind, count in comparison.totals.items()),
        f"  changed share {percent(comparison.changed_share)}, "
        f"kept share {percent(comparison.kept_share)}",
        *_quality_lines(comparison),
        "",
        style.bold("By attribute"),
    ]
    header = ("attribute", *KINDS, "agreement", "")
    rows = [
        (clean(row["attribute"]), *(f"{row[kind]:,}" for kind in KINDS),
         percent(row["agreement"]), meter(row["agreement"]))
        for row in comparison.per_attribute.iter_rows(named=True)
    ]  # fmt: skip
    lines += columns([header, *rows])
    if comparison.changes.height:
        lines += ["", style.bold("Some differences"), *_sample_lines(comparison.changes)]
    if checks:
        lines += ["", style.bold("Gate"), *columns(_check_cells(check) for check in checks)]
    return "\n".join(lines)


def _quality_lines(comparison: Comparison) -> list[str]:
    found = [quality.total for quality in comparison.quality if quality is not None]
    if len(found) != 2:
        return []
    figures = ", ".join(
        f"{name} {percent(found[0][name])} -> {percent(found[1][name])}"
        for name in ("precision", "recall", "f1")
    )
    return [f"  against gold: {figures}"]


def _sample_lines(changes: pl.DataFrame) -> list[str]:
    return columns(
        (clean(row["product_id"]), clean(row["attribute"]), row["kind"],
         f"{_joined(row['before'])} -> {_joined(row['after'])}")
        for row in changes.head(_SAMPLE_LINES).iter_rows(named=True)
    )  # fmt: skip


def _joined(values: Sequence[str] | None) -> str:
    return "(none)" if values is None else clean(", ".join(values))


def _check_cells(check: Check) -> tuple[str, str, str, str]:
    verdict = check.verdict.upper() if check.verdict == FAILED else check.verdict
    return check.name, verdict, f"found {percent(check.found)}", f"limit {percent(check.limit)}"


def comparison_page(
    comparison: Comparison, checks: Sequence[Check], cards: Sequence[Mapping[str, Any]]
) -> str:
    """Return the comparison as an HTML page."""
    before, after = comparison.names
    sections = [
        Section("summary", "Summary", joined(_tiles(comparison), _gate(checks))),
        Section("attributes", "By attribute", _attributes(comparison)),
    ]
    attributes = comparison.per_attribute["attribute"].to_list()
    sides = [side for found in cards for side in found["sides"]]
    has_maps = any(side["maps"] for side in sides)
    if cards:
        lead = tag("p", f"A fixed draw of products that {before} and {after} answer differently.",
                   class_="lead")  # fmt: skip
        filters = filtered_cards(
            attributes=sorted(attributes),
            statuses=sorted({side["status"] for side in sides}),
            kinds=[("all", "all products"), ("wrong", "with a mistake")],
            heatmaps=True if has_maps else None,
            kind="pairs",
        )
        sections.append(Section("products", "Products", joined(lead, filters)))
    return render_page(
        title="What would change",
        subtitle=[f"{before} \u2192 {after}"],
        sections=sections,
        data={
            "kind": "compare",
            "attributes": attributes,
            "heatmaps": has_maps,
            "has_texts": any(found["texts"] for found in cards),
            "cards": list(cards),
        },
    )


def _tiles(comparison: Comparison) -> Markup:
    totals = comparison.totals
    tiles = [
        ("Products", number(comparison.num_products), "in both"),
        ("Answered alike", percent(comparison.num_equal / comparison.num_products), "of products"),
        ("Changed share", percent(comparison.changed_share), "of all answers"),
        ("Kept share", percent(comparison.kept_share), f"of the answers of {comparison.names[0]}"),
        *((kind.capitalize(), number(totals[kind]), "answers") for kind in KINDS[1:]),
    ]
    before, after = comparison.quality
    if before is not None and after is not None:
        note = f"{comparison.names[0]}: {percent(before.total['f1'])}"
        tiles.append(("TAG-F1", percent(after.total["f1"]), note))
    return tag(
        "dl",
        (
            tag("div", tag("dt", name), tag("dd", figure, class_="big"),
                tag("dd", note, class_="note"), class_="tile")
            for name, figure, note in tiles
        ),
        class_="tiles",
    )  # fmt: skip


def _gate(checks: Sequence[Check]) -> Markup:
    if not checks:
        return Markup("")
    rows = [
        (
            check.name,
            verdict_mark(check.verdict),
            percent(check.found),
            percent(check.limit),
        )
        for check in checks
    ]
    return joined(tag("h3", "Gate"), grid("Gate", ("Check", "Verdict", "Found", "Limit"), rows))


def _attributes(comparison: Comparison) -> Markup:
    rows = [
        (row["attribute"], charts.bar(row["agreement"]), percent(row["agreement"]),
         *(row[kind] for kind in KINDS))
        for row in comparison.per_attribute.iter_rows(named=True)
    ]  # fmt: skip
    header = (
        "Attribute",
        "Agreement as a bar",
        "Agreement",
        *(kind.capitalize() for kind in KINDS),
    )
    return grid("Differences by attribute", header, rows)


def sample_cards(
    comparison: Comparison,
    sides: tuple[Answers, Answers],
    reader: ProductReader | None,
    views: Sequence[ModelView] = (),
) -> list[dict[str, Any]]:
    """Return cards of the drawn differences; heatmaps where the models are at hand."""
    ids = comparison.changes["product_id"].unique(maintain_order=True).to_list()
    known = reader.find(ids) if reader is not None else {}
    stored = [read_extractions(side.extractions, ids) for side in sides]
    notes = _notes(comparison.changes)
    cards = []
    for product_id in ids:
        product = known.get(product_id) or Product(product_id, {})
        row = [Side(side.name, *rows[product_id]) for side, rows in zip(sides, stored, strict=True)]
        if views:
            row = with_maps(product, row, views)
        found = card(product, row, picture_side=PICTURE_SIDE)
        cards.append({**found, "change": notes[product_id]})
    return cards


def _notes(changes: pl.DataFrame) -> dict[str, str]:
    """Say in a few words what differs, product by product."""
    notes: dict[str, list[str]] = {}
    for row in changes.iter_rows(named=True):
        notes.setdefault(row["product_id"], []).append(f"{row['kind']} {row['attribute']}")
    return {product_id: ", ".join(parts) for product_id, parts in notes.items()}
