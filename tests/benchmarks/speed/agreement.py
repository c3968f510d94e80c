"""How far two systems agree on the same products."""

from collections.abc import Sequence
from dataclasses import dataclass

from ulsdram_core.schema import Extraction, Product, Value


@dataclass(frozen=True)
class Agreement:
    """`equal`: share of all spans that both found; `confidence`: the largest difference."""

    num_spans: int
    equal: float
    confidence: float

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
    a = _spans(products, [extraction.values for extraction in ours])
    b = _spans(products, theirs)
    both = a.keys() & b.keys()
    every = a.keys() | b.keys()
    confidence = max((abs(a[key] - b[key]) for key in both), default=0.0)
    return Agreement(len(every), len(both) / max(1, len(every)), confidence)


def _spans(products: Sequence[Product], found: Sequence[Sequence[Value]]) -> dict[tuple, float]:
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
