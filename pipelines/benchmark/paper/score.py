"""What a run's answers are worth: figures, and counts per product for paired comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ulsdram_core.counts import Counts
from ulsdram_core.metrics import (
    AccuracyMetric,
    ExtractionMetrics,
    gold_spans,
    predicted_spans,
    values_by_attribute,
)
from ulsdram_core.schema import Extraction, Product

Categories = Mapping[str, frozenset[str]]


@dataclass
class Score:
    """Counts of one run over the test products, product by product."""

    metrics: ExtractionMetrics = field(default_factory=ExtractionMetrics)
    correct: list[int] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    gold: list[int] = field(default_factory=list)
    right_values: list[int] = field(default_factory=list)
    gold_values: list[int] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)
    """Values of attributes that no training product of the category has: all are wrong guesses
    about the range, unless gold has them."""

    def add(self, product: Product, extraction: Extraction, categories: Categories) -> None:
        """Count one product's extraction."""
        gold = product.gold or ()
        self.metrics.update(gold, extraction)
        found, wanted = predicted_spans(extraction), gold_spans(gold)
        counts = Counts()
        counts.update(found, wanted)
        self.correct.append(counts.correct)
        self.predicted.append(counts.predicted)
        self.gold.append(counts.gold)
        self._add_values(
            values_by_attribute((v.attribute, v.value) for v in extraction.values), product
        )
        known = categories.get(product.category or "")
        wrong = found - wanted
        self.outside.append(
            0 if known is None else sum(span.attribute not in known for span in wrong)
        )

    def add_values(self, product: Product, values: Mapping[str, set[str]]) -> None:
        """Count one product's values that have no spans (MAE-model)."""
        self.correct.append(0)
        self.predicted.append(0)
        self.gold.append(0)
        self.outside.append(0)
        self._add_values(values, product)

    def _add_values(self, values: Mapping[str, set[str]], product: Product) -> None:
        accuracy = AccuracyMetric()
        gold = values_by_attribute((g.attribute, g.value) for g in product.gold or ())
        accuracy.update(values, gold)
        self.right_values.append(accuracy.correct)
        self.gold_values.append(accuracy.total)

    def figures(self, *, has_spans: bool, has_head: bool) -> dict[str, float | None]:
        """Return the figures of the tables, as fractions; None where a system has none."""
        computed = self.metrics.compute()
        micro, cls = computed["tag"]["micro"], computed["cls"]
        total = sum(self.gold_values)
        shown: dict[str, float | None] = {
            "precision": micro["precision"],
            "recall": micro["recall"],
            "tag_f1": micro["f1"],
            "cls_f1": cls["cls_jave"]["f1"] if has_head else None,
            "cls_released_f1": cls["cls_released"]["f1"] if has_head else None,
        }
        if not has_spans:
            shown = dict.fromkeys(shown)
        shown["accuracy"] = sum(self.right_values) / total if total else 0.0
        return shown

    def per_product(self) -> dict[str, list[int]]:
        """Return the counts of every test product, in order."""
        names = ("correct", "predicted", "gold", "right_values", "gold_values", "outside")
        return {name: getattr(self, name) for name in names}


def score_extractions(
    products: Sequence[Product], extractions: Sequence[Extraction], categories: Categories
) -> Score:
    """Score one extraction per product."""
    score = Score()
    for product, extraction in zip(products, extractions, strict=True):
        score.add(product, extraction, categories)
    return score
