"""What a run's answers are worth: figures, and counts per product for paired comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from ulsdram_core.counts import Counts, ratio
from ulsdram_core.metrics import (
    AccuracyMetric,
    ExtractionMetrics,
    gold_spans,
    predicted_spans,
    values_by_attribute,
)
from ulsdram_core.schema import Extraction, Product

Categories = Mapping[str, frozenset[str]]


@dataclass(slots=True)
class ProductCounts(Counts):
    """Counts of one product."""

    right_values: int = 0
    gold_values: int = 0
    outside: int = 0
    """Values of attributes that no training product of the category has: all are wrong guesses
    about the range, unless gold has them."""

    def add_values(self, values: Mapping[str, set[str]], product: Product) -> None:
        """Count the values found, by attribute, as MAE's accuracy does."""
        accuracy = AccuracyMetric()
        gold = values_by_attribute((g.attribute, g.value) for g in product.gold or ())
        accuracy.update(values, gold)
        self.right_values, self.gold_values = accuracy.correct, accuracy.total


@dataclass
class Score:
    """Counts of one run over the test products, product by product."""

    metrics: ExtractionMetrics = field(default_factory=ExtractionMetrics)
    rows: list[ProductCounts] = field(default_factory=list)

    def add(self, product: Product, extraction: Extraction, categories: Categories) -> None:
        """Count one product's extraction."""
        gold = product.gold or ()
        self.metrics.update(gold, extraction)
        found, wanted = predicted_spans(extraction), gold_spans(gold)
        counts = ProductCounts()
        counts.update(found, wanted)
        counts.add_values(
            values_by_attribute((v.attribute, v.value) for v in extraction.values), product
        )
        known = categories.get(product.category or "")
        if known is not None:
            counts.outside = sum(span.attribute not in known for span in found - wanted)
        self.rows.append(counts)

    def add_values(self, product: Product, values: Mapping[str, set[str]]) -> None:
        """Count one product's values that have no spans (MAE-model)."""
        counts = ProductCounts()
        counts.add_values(values, product)
        self.rows.append(counts)

    def figures(self, *, has_spans: bool, has_head: bool) -> dict[str, float | None]:
        """Return the figures of the tables, as fractions; None where a system has none."""
        computed = self.metrics.compute()
        micro, cls = computed["tag"]["micro"], computed["cls"]
        total = sum(row.gold_values for row in self.rows)
        shown: dict[str, float | None] = {
            "precision": micro["precision"],
            "recall": micro["recall"],
            "tag_f1": micro["f1"],
            "cls_f1": cls["cls_jave"]["f1"] if has_head else None,
            "cls_released_f1": cls["cls_released"]["f1"] if has_head else None,
        }
        if not has_spans:
            shown = dict.fromkeys(shown)
        shown["accuracy"] = ratio(sum(row.right_values for row in self.rows), total)
        return shown

    def per_product(self) -> dict[str, list[int]]:
        """Return the counts of every test product, in order."""
        names = [part.name for part in fields(ProductCounts)]
        return {name: [getattr(row, name) for row in self.rows] for name in names}


def score_extractions(
    products: Sequence[Product], extractions: Sequence[Extraction], categories: Categories
) -> Score:
    """Score one extraction per product."""
    score = Score()
    for product, extraction in zip(products, extractions, strict=True):
        score.add(product, extraction, categories)
    return score
