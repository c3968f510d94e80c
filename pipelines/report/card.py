"""Product cards as plain data: what the page's script draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.report.model_view import ModelView, WordMap
from pipelines.report.pictures import thumbnail
from ulsdram_core.metrics import gold_spans
from ulsdram_core.schema import Extraction, GoldSpan, Product, Value

SHOWN_CHARS = 2000
MAX_PICTURES = 4


@dataclass(frozen=True)
class Side:
    """What one model, or one table, says about a product."""

    name: str
    extraction: Extraction
    model_id: str | None = None
    maps: tuple[WordMap, ...] = ()


def with_maps(
    product: Product, sides: Sequence[Side], views: Sequence[ModelView | None]
) -> list[Side]:
    """Return the sides with heatmaps of the words that any side's values are made of."""
    values = [v for side in sides for v in side.extraction.values if _is_found(v, product)]
    return [
        side
        if view is None
        else replace(side, maps=tuple(view.maps(product, view.value_words(product, values))))
        for side, view in zip(sides, views, strict=True)
    ]


def card(product: Product, sides: Sequence[Side], *, picture_side: int) -> dict[str, Any]:
    """Return one product as JSON values; offsets count code points."""
    used = {value.source for side in sides for value in side.extraction.values}
    gold = [span for span in product.gold or () if span.source in used or span.source == "title"]
    shown = (thumbnail(data, side=picture_side) for data in product.pictures[:MAX_PICTURES])
    pictures = [picture._asdict() for picture in shown if picture is not None]
    return {
        "id": product.product_id,
        "category": product.category,
        "texts": [
            {"source": source, "text": text[:SHOWN_CHARS], "is_cut": len(text) > SHOWN_CHARS}
            for source, text in product.texts.items()
            if text.strip()
        ],
        "pictures": pictures,
        "sides": [_side(side, product, gold) for side in sides],
    }


def _side(side: Side, product: Product, gold: Sequence[GoldSpan]) -> dict[str, Any]:
    extraction = side.extraction
    wanted = gold_spans(gold)
    found = {(v.attribute, v.source, v.start, v.end) for v in extraction.values}
    missed = [span for span in gold if (span.attribute, span.source, span.start, span.end)
              not in found]  # fmt: skip
    return {
        "name": side.name,
        "model": side.model_id,
        "status": extraction.status.value,
        "reason": None if extraction.reason is None else extraction.reason.value,
        "values": [
            {
                **_value(value),
                "correct": None if product.gold is None else _key(value) in wanted,
                "is_found": _is_found(value, product),
            }
            for value in extraction.values
        ],
        "missed": [{"attribute": span.attribute, "value": span.value} for span in missed],
        "range": [[entry.attribute, _rounded(entry.score)] for entry in extraction.range],
        "maps": [word.to_json() for word in side.maps],
    }


def _is_found(value: Value, product: Product) -> bool:
    """Return whether the value stands where it was found: the text may have changed since."""
    text = product.texts.get(value.source)
    return text is not None and text[value.start : value.end] == value.value


def _key(value: Value) -> tuple[str, str, int, int]:
    return value.attribute, value.source, value.start, value.end


def _value(value: Value) -> dict[str, Any]:
    return {
        "attribute": value.attribute,
        "value": value.value,
        "normalized": value.normalized,
        "source": value.source,
        "start": value.start,
        "end": value.end,
        "confidence": _rounded(value.confidence),
    }


def _rounded(number: float | None) -> float | None:
    """Return the number with four digits; None for what JSON cannot say."""
    return round(number, 4) if number is not None and math.isfinite(number) else None
