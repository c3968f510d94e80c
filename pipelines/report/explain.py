"""One product explained: its values in the text, their confidence, the range, the heatmaps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.command.terminal import Style, clean, columns, meter, padded, shade, width_of
from pipelines.lake.products import ProductReader
from pipelines.report.card import Side, card
from pipelines.report.cards import card_list
from pipelines.report.markup import joined, tag
from pipelines.report.model_view import ModelView, WordMap
from pipelines.report.page import Section, render_page
from ulsdram_core.errors import PictureError
from ulsdram_core.heatmap import TextSpan
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.metrics import judge_values
from ulsdram_core.schema import Extraction, Product, Value

PICTURE_SIDE = 384
_GAP = "   "


@dataclass(frozen=True)
class Explanation:
    """What one model says about a product, and where it looked."""

    view: ModelView
    product: Product
    extraction: Extraction
    maps: tuple[WordMap, ...]


def find_product(reader: ProductReader, product_id: str) -> Product:
    """Return a product of the table."""
    found = reader.find([product_id]).get(product_id)
    if found is None:
        raise ValueError(
            f"found no product {product_id!r} in {reader.storage.uri}; check --product-id"
        )
    return found


def explain(view: ModelView, product: Product, words: Sequence[str] | None = None) -> Explanation:
    """Extract from one product; heatmaps of the named words, else of every word."""
    extraction = view.extract([product])[0]
    spans = view.words(product)
    if words is not None:
        spans = _named(spans, product, words)
    return Explanation(view, product, extraction, tuple(view.maps(product, spans)))


def _named(spans: Sequence[TextSpan], product: Product, words: Sequence[str]) -> list[TextSpan]:
    """Return the spans of words by their spelling, letter case ignored."""
    spelled = [product.texts[span.source][span.start : span.end] for span in spans]
    known = {text.casefold() for text in spelled}
    wanted = [word.casefold() for word in words]
    for word in wanted:
        if word not in known:
            raise ValueError(
                f"found no word {word!r} in the product, expected some of "
                f"{list(dict.fromkeys(spelled))[:20]}; correct --tokens"
            )
    return [
        span for span, text in zip(spans, spelled, strict=True) if text.casefold() in set(wanted)
    ]


# ---- page ----


def explanation_page(explanations: Sequence[Explanation]) -> str:
    """Return one product as an HTML page, every model's answer and every word's heatmap."""
    product = explanations[0].product
    sides = [Side(e.view.name, e.extraction, e.view.model_id, e.maps) for e in explanations]
    attributes = dict.fromkeys(v.attribute for e in explanations for v in e.extraction.values)
    lead = (
        "Every map shows where a model looks for one word, cold to warm, stretched to its own "
        "range."
        if any(e.maps for e in explanations)
        else "There is no usable picture, or the model reads texts alone: no heatmaps."
    )
    return render_page(
        title=f"Product {product.product_id}",
        subtitle=[f"{e.view.name}: model {e.view.model_id}" for e in explanations],
        sections=[
            Section("product", "Values and heatmaps",
                    joined(tag("p", lead, class_="lead"), card_list(kind="wide"))),
        ],
        data={
            "kind": "explain",
            "attributes": list(attributes),
            "heatmaps": False,
            "cards": [card(product, sides, picture_side=PICTURE_SIDE)],
        },
    )  # fmt: skip


# ---- terminal ----


def explanation_text(explanation: Explanation, *, style: Style, width: int = 100) -> str:
    """Return the explanation for a terminal of so many columns."""
    product, extraction = explanation.product, explanation.extraction
    reason = f" ({extraction.reason.value})" if extraction.reason else ""
    lines = [
        style.bold(clean(product.product_id))
        + f"  {extraction.status.value}{reason}  "
        + style.faint(f"{explanation.view.name}, model {explanation.view.model_id}"),
    ]
    places = {name: i for i, name in enumerate(explanation.view.extractor.labels.attributes)}
    for source, text in product.texts.items():
        lines += [
            "",
            f"{clean(source)}: {_highlighted(source, text, extraction.values, places, style)}",
        ]
    lines += ["", style.bold("Values"), *_values(explanation, places, style)]
    if extraction.range:
        lines += ["", style.bold("Attribute range")]
        lines += columns((clean(e.attribute), meter(e.score), f"{e.score:.3f}")
                         for e in extraction.range)  # fmt: skip
    for picture in range(len(explanation.maps[0].weights) if explanation.maps else 0):
        lines += ["", style.bold(f"Where the words look in picture {picture + 1}")]
        lines += _maps(explanation, picture, style, width)
    return "\n".join(lines)


def _highlighted(
    source: str, text: str, values: Sequence[Value], places: dict[str, int], style: Style
) -> str:
    """Return the text with its values marked; where two overlap, the first is marked."""
    parts, at = [], 0
    for value in sorted(values, key=lambda v: (v.start, -v.end)):
        if value.source != source or value.start < at:
            continue
        parts.append(clean(text[at : value.start]))
        marked = style.marked(clean(text[value.start : value.end]), places.get(value.attribute, 0))
        parts.append(f"{marked}{style.faint('<' + clean(value.attribute) + '>')}")
        at = value.end
    return "".join([*parts, clean(text[at:])])


def _values(explanation: Explanation, places: dict[str, int], style: Style) -> list[str]:
    values, gold = explanation.extraction.values, explanation.product.gold
    if not values:
        return ["  none"]
    marks = [""] * len(values)
    if gold is not None:
        judged = judge_values(gold, explanation.extraction)
        marks = ["right" if value.correct else "wrong" for value in judged]
    return columns(
        (
            style.marked(clean(v.attribute), places.get(v.attribute, 0)),
            clean(v.value) + (f" -> {clean(v.normalized)}" if v.normalized not in (None, v.value)
                              else ""),
            meter(v.confidence),
            f"{v.confidence:.3f}",
            mark,
        )
        for v, mark in zip(values, marks, strict=True)
    )  # fmt: skip


def _maps(explanation: Explanation, picture: int, style: Style, width: int) -> list[str]:
    """Return the maps in rows that fit: shades for the weights, the picture's colours below."""
    blocks = [_map(explanation.product, word, picture, style) for word in explanation.maps]
    block_width = max(width_of(block[0]) for block in blocks)
    per_row = max(1, (width - 2) // (block_width + len(_GAP)))
    lines: list[str] = []
    for start in range(0, len(blocks), per_row):
        row = blocks[start : start + per_row]
        for i in range(len(row[0])):
            cells = [padded(block[i], block_width) for block in row]
            lines.append(("  " + _GAP.join(cells)).rstrip())
        lines.append("")
    return lines[:-1]


def _map(product: Product, word: WordMap, picture: int, style: Style) -> list[str]:
    """Return one map as lines, its word on top."""
    weights = word.weights[picture]
    colours = _region_colours(product, picture, weights.shape)
    span = word.span
    name = clean(product.texts[span.source][span.start : span.end])
    lines = [padded(name[: 2 * weights.shape[1]], 2 * weights.shape[1])]
    for row, tints in zip(weights, colours, strict=True):
        lines.append(
            "".join(
                style.painted(shade(float(weight)) * 2, tint)
                for weight, tint in zip(row, tints, strict=True)
            )
        )
    return lines


def _region_colours(product: Product, picture: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mean colour of every region, [h, w, 3], bright enough to be seen."""
    height, width = shape
    side = 8 * max(height, width)
    shown = []
    for data in product.pictures:
        try:
            shown.append(decode_picture(data, ImageConfig(size=side)))
        except PictureError:
            continue
    if picture >= len(shown):
        return np.full((height, width, 3), 200, dtype=np.uint8)
    rows = np.array_split(shown[picture], height, axis=0)
    cells = [[part.mean((0, 1)) for part in np.array_split(row, width, axis=1)] for row in rows]
    return np.clip(np.array(cells), 70, 255).astype(np.uint8)
