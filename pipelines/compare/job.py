"""The compare command behind its script: open both sides, compare, judge, write."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.analysis.results import table
from pipelines.checks import FAILED, Check
from pipelines.command.terminal import Style
from pipelines.compare.differences import Answers, Comparison, GateLimits, compare
from pipelines.compare.output import comparison_page, comparison_text, sample_cards
from pipelines.errors import RunFailedError
from pipelines.lake.extraction_rows import extraction_frame
from pipelines.lake.kinds import check_file
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from pipelines.lake.uris import without_secrets
from pipelines.report.grid import percent
from pipelines.report.model_view import ModelView
from ulsdram_core.schema import Extraction

FORMATS = (".json", ".html")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompareRequest:
    """Two tables, or two models and the products they are tried on."""

    tables: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    products: ProductReader | None = None
    limit: int = 1000
    attributes: tuple[str, ...] = ()
    limits: GateLimits = field(default_factory=GateLimits)
    out: Storage | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if (len(self.tables), len(self.models)) not in ((2, 0), (0, 2)):
            raise ValueError(
                f"found {len(self.tables)} --table and {len(self.models)} --model, expected two "
                "of one kind"
            )
        if self.models and self.products is None:
            raise ValueError("found two models without a catalogue, expected --input")
        if self.limit < 1:
            raise ValueError(f"found --limit {self.limit}, expected at least 1")
        if self.out is not None and not self.out.name.lower().endswith(FORMATS):
            raise ValueError(f"found --out {self.out.name}, expected a name in .json or .html")


@dataclass(frozen=True)
class CompareResult:
    """Text for the terminal and the summary."""

    text: str
    summary: dict[str, Any]


def run_comparison(request: CompareRequest, *, style: Style) -> CompareResult:
    """Compare; RunFailedError, with the summary, when the gate fails (outputs are written)."""
    if request.out is not None:
        read = () if request.products is None else (request.products.storage,)
        check_file(request.out, *read)
    views: tuple[ModelView, ...] = ()
    if request.tables:
        sides = _tables(request)
    else:
        first, second = (ModelView.load(Storage.of(m, request.options)) for m in request.models)
        views = (first, second)
        sides = _models(first, second, request)
    gold = request.products.gold() if request.products is not None else None
    comparison = compare(*sides, gold=gold, attributes=request.attributes)
    checks = comparison.gate(request.limits)
    if request.out is not None:
        _write(request, comparison, checks, sides, views)
    summary = _summary(request, comparison, checks)
    text = comparison_text(comparison, checks, style=style)
    failed = [check for check in checks if check.verdict == FAILED]
    if failed:
        parts = (f"{c.name} {percent(c.found)}, limit {percent(c.limit)}" for c in failed)
        raise ComparisonRefusedError(
            f"the gate failed: {'; '.join(parts)}", summary=summary, text=text
        )
    return CompareResult(text, summary)


class ComparisonRefusedError(RunFailedError):
    """The gate says no; `text` is the whole comparison."""

    def __init__(self, message: str, *, summary: Mapping[str, Any], text: str) -> None:
        super().__init__(message, summary=summary)
        self.text = text


def _tables(request: CompareRequest) -> tuple[Answers, Answers]:
    """Open both; `T@moment` is the table at an earlier moment."""
    sides = []
    for uri in request.tables:
        place, at, moment = uri.rpartition("@")
        if not at or "/" in moment:  # an @ further left is part of the address
            place, moment = uri, ""
        opened = table(place, at=moment or None, options=request.options)
        sides.append(Answers(without_secrets(uri), opened.extractions()))
    return sides[0], sides[1]


def _models(
    first: ModelView, second: ModelView, request: CompareRequest
) -> tuple[Answers, Answers]:
    assert request.products is not None
    found: tuple[list[Extraction], list[Extraction]] = ([], [])
    for products in request.products.batches(limit=request.limit):
        for view, rows in zip((first, second), found, strict=True):
            rows += view.extract(products)
        _log.info("%d products extracted by both models", len(found[0]))
    names = _names(first, second)
    frames = [
        extraction_frame(rows, model_id=view.model_id)
        for view, rows in zip((first, second), found, strict=True)
    ]
    return Answers(names[0], frames[0]), Answers(names[1], frames[1])


def _names(first: ModelView, second: ModelView) -> tuple[str, str]:
    if first.name != second.name:
        return first.name, second.name
    return f"{first.name} {first.model_id[:6]}", f"{second.name} {second.model_id[:6]}"


def _write(
    request: CompareRequest,
    comparison: Comparison,
    checks: Sequence[Check],
    sides: tuple[Answers, Answers],
    views: Sequence[ModelView],
) -> None:
    assert request.out is not None
    if request.out.name.lower().endswith(".json"):
        document = {**comparison.to_dict(), "gate": [asdict(check) for check in checks]}
        text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    else:
        cards = sample_cards(comparison, sides, request.products, views)
        text = comparison_page(comparison, checks, cards)
    request.out.write_bytes(text.encode())


def _summary(
    request: CompareRequest, comparison: Comparison, checks: Sequence[Check]
) -> dict[str, Any]:
    found = comparison.to_dict()
    names = ("before", "after", "products", "products_equal", "answers", "changed_share",
             "kept_share")  # fmt: skip
    summary = {name: found[name] for name in names}
    quality = [None if total is None else total["f1"] for total in found["quality"]]
    return {
        **summary,
        "f1": quality,
        "gate": [asdict(check) for check in checks],
        "out": None if request.out is None else request.out.uri,
    }
