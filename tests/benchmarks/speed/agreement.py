"""How far two systems agree on the same products."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ulsdram_core.schema import Extraction, Product, Value

# (product, attribute, source, start, end)
Span = tuple[str, str, str, int, int]
Spans = Mapping[Span, float]
"""Spans with their confidences."""

# Speeds are compared at equal values; below this they are said not to be.
LEAST_EQUAL = 0.995
MOST_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Agreement:
    """`equal`: share of all spans that both found; `confidence`: the largest difference."""

    num_spans: int
    equal: float
    confidence: float

    @property
    def is_close(self) -> bool:
        """Whether the two may be compared as doing the same work."""
        return self.equal >= LEAST_EQUAL and self.confidence <= MOST_DIFFERENCE

    def note(self) -> str:
        """For people."""
        return (
            f"{self.num_spans} spans, {100 * self.equal:.2f}% found by both, "
            f"confidences differ by at most {self.confidence:.2g}"
        )


def agreement(
    products: Sequence[Product], ours: Sequence[Extraction], theirs: Sequence[Sequence[Value]]
) -> Agreement:
    """Compare spans and their confidences, product by product."""
    return compare(
        _spans(products, [extraction.values for extraction in ours]), _spans(products, theirs)
    )


def compare(ours: Spans, theirs: Spans) -> Agreement:
    """Compare two sets of spans."""
    both = ours.keys() & theirs.keys()
    every = ours.keys() | theirs.keys()
    confidence = max((abs(ours[key] - theirs[key]) for key in both), default=0.0)
    return Agreement(len(every), len(both) / max(1, len(every)), confidence)


def _spans(products: Sequence[Product], found: Sequence[Sequence[Value]]) -> dict[Span, float]:
    return {
        (
            product.product_id,
            value.attribute,
            value.source,
            value.start,
            value.end,
        ): value.confidence
        for product, values in zip(products, found, strict=True)
        for value in values
    }
