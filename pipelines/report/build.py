"""The report: a table, its runs and a sample of its products as one HTML page."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.analysis.results import ResultTable
from pipelines.lake.extraction_rows import StoredExtraction, read_extractions
from pipelines.lake.history import Moment
from pipelines.lake.products import ProductReader
from pipelines.report.card import Side, card, with_maps
from pipelines.report.cards import filtered_cards
from pipelines.report.catalog_numbers import CatalogNumbers, gather_numbers
from pipelines.report.markup import joined, tag
from pipelines.report.model_view import ModelView
from pipelines.report.page import Section, render_page
from pipelines.report.sample import sample_ids
from pipelines.report.sections import number_sections
from ulsdram_core.schema import Product

PICTURE_SIDE = 192
BATCH = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportRequest:
    """What a page is made of; without `products` the cards have neither text nor picture."""

    table: ResultTable
    products: ProductReader | None = None
    model: ModelView | None = None
    baseline: ModelView | None = None
    since: Moment | None = None
    num_cards: int = 200
    title: str = "Extraction report"


@dataclass(frozen=True)
class Report:
    """The page and what it shows."""

    html: str
    catalog: CatalogNumbers
    num_cards: int
    num_maps: int


def build_report(request: ReportRequest) -> Report:
    """Gather, draw, and return the page."""
    catalog = gather_numbers(request.table, request.products, since=request.since)
    cards = _cards(request)
    sides = [side for found in cards for side in found["sides"]]
    num_maps = sum(len(side["maps"]) for side in sides)
    is_shown = num_maps > 0 and request.baseline is not None
    attributes = catalog.coverage["attribute"].to_list()
    content = joined(
        tag("p", _about_cards(request, catalog, len(cards)), class_="lead"),
        filtered_cards(
            attributes=sorted(attributes),
            statuses=sorted({side["status"] for side in sides}),
            kinds=_kinds(request, catalog),
            heatmaps=None if num_maps == 0 else is_shown,
            kind="pairs" if request.baseline else "",
        ),
    )
    html = render_page(
        title=request.title,
        subtitle=_subtitle(catalog),
        sections=[*number_sections(catalog), Section("products", "Products", content)],
        data={
            "kind": "report",
            "attributes": attributes,
            "heatmaps": is_shown,
            "has_texts": request.products is not None,
            "cards": cards,
        },
    )
    return Report(html, catalog, len(cards), num_maps)


def _subtitle(catalog: CatalogNumbers) -> list[str]:
    parts = [catalog.table, f"version {catalog.version}", catalog.committed_at]
    if catalog.run_id:
        parts.append(f"run {catalog.run_id}")
    return parts + [f"model {model_id}" for model_id in catalog.models[:3]]


def _kinds(request: ReportRequest, catalog: CatalogNumbers) -> list[tuple[str, str]]:
    kinds = [("all", "all products"), ("empty", "without a value")]
    if catalog.quality is not None:
        kinds.append(("wrong", "with a mistake"))
    if request.baseline is not None:
        kinds.append(("differ", "where the models differ"))
    return kinds


def _about_cards(request: ReportRequest, catalog: CatalogNumbers, num_cards: int) -> str:
    text = f"{num_cards:,} of {catalog.num_live:,} products: "
    text += "a fixed draw that favours trouble and doubt. "
    views = [view for view in (request.model, request.baseline) if view is not None]
    if any(view.sees_pictures for view in views):
        text += "Choose a word to see where the model looks for it, cold to warm; "
        text += "each map is stretched to its own range. "
    if request.model is not None and catalog.models not in ([], [request.model.model_id]):
        text += f"The heatmaps are those of model {request.model.model_id}; "
        text += "the table was made by another one."
    return text


def _cards(request: ReportRequest) -> list[dict[str, Any]]:
    extractions = request.table.extractions()
    ids = sample_ids(extractions, request.num_cards)
    cards: list[dict[str, Any]] = []
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        stored = read_extractions(extractions, part)
        known = request.products.find(part) if request.products is not None else {}
        products = [known.get(product_id) or Product(product_id, {}) for product_id in part]
        cards += _batch(products, [stored[product_id] for product_id in part], request)
        _log.info("%d of %d cards", len(cards), len(ids))
    return cards


def _batch(
    products: Sequence[Product], stored: Sequence[StoredExtraction], request: ReportRequest
) -> list[dict[str, Any]]:
    """Return cards of a few products: the table's values, beside the baseline's if there is one."""
    name = request.model.name if request.model is not None else "Table"
    rows = [[Side(name, extraction, model_id)] for extraction, model_id in stored]
    views = [request.model]
    if request.baseline is not None:
        found = request.baseline.extract(products)
        for row, extraction in zip(rows, found, strict=True):
            row.append(Side(request.baseline.name, extraction, request.baseline.model_id))
        views.append(request.baseline)
    return [
        card(product, with_maps(product, row, views), picture_side=PICTURE_SIDE)
        for product, row in zip(products, rows, strict=True)
    ]
