"""How good extractions are, as counts that workers add up: merged counts equal joint counts.

Spans are compared, not tag strings: two attributes may claim the same text. All results are
fractions in [0, 1]; a ratio without a denominator is 0.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ulsdram_core.calibration import CalibrationMetric
from ulsdram_core.counts import Counts, Tally, ratio
from ulsdram_core.schema import Extraction, GoldSpan

# Both released code and JAVE count an attribute as predicted above .5, whatever the range uses.
CLS_THRESHOLD = 0.5


class SpanKey(NamedTuple):
    """What makes two spans the same."""

    attribute: str
    source: str
    start: int
    end: int


class JudgedValue(NamedTuple):
    """One predicted value with its confidence; correct: gold has exactly this span."""

    attribute: str
    confidence: float
    correct: bool


@dataclass(slots=True)
class TagMetric(Tally):
    """TAG precision, recall and F1: an entity is an attribute and its exact span in a source."""

    per_attribute: dict[str, Counts] = field(default_factory=dict)

    def update(self, predicted: Set[SpanKey], gold: Set[SpanKey]) -> None:
        """Count one product's spans: (attribute, source, start, end)."""
        for attribute in {span[0] for span in predicted | gold}:
            self.per_attribute.setdefault(attribute, Counts()).update(
                {span for span in predicted if span[0] == attribute},
                {span for span in gold if span[0] == attribute},
            )

    def compute(self) -> dict[str, Any]:
        """Return micro and macro figures, and each attribute's.

        Macro is the mean over the attributes that occur, in gold or in a prediction.
        """
        per_attribute = _compute_counts(self.per_attribute)
        macro = {
            name: ratio(sum(row[name] for row in per_attribute.values()), len(per_attribute))
            for name in ("precision", "recall", "f1")
        }
        micro = _total(self.per_attribute).compute()
        return {"micro": micro, "macro": macro, "per_attribute": per_attribute}


@dataclass(slots=True)
class ClsMetric(Tally):
    """CLS precision, recall and F1: which attributes a product has, micro over attributes.

    `cls_jave` counts attributes only. `cls_released`, ULS-DRAM's own evaluation, has "no
    attribute" as one more class: a product without any attribute has it, and it is predicted
    where nothing else is.
    """

    per_attribute: dict[str, Counts] = field(default_factory=dict)
    no_attribute: Counts = field(default_factory=Counts)

    def update(self, predicted: Set[str], gold: Set[str]) -> None:
        """Count one product's attributes."""
        for attribute in predicted | gold:
            self.per_attribute.setdefault(attribute, Counts()).update(
                predicted & {attribute}, gold & {attribute}
            )
        self.no_attribute.update(set() if predicted else {None}, set() if gold else {None})

    def compute(self) -> dict[str, Any]:
        """Return both conventions, and each attribute's figures."""
        jave, released = _total(self.per_attribute), _total(self.per_attribute)
        released.merge(self.no_attribute)
        return {
            "cls_released": released.compute(),
            "cls_jave": jave.compute(),
            "per_attribute": _compute_counts(self.per_attribute),
        }


@dataclass(slots=True)
class AccuracyMetric(Tally):
    """MAE's accuracy (paper A.3): the share of gold values whose attribute is exactly right.

    An attribute of a product is right if the set of its predicted values equals the gold set;
    attributes without gold are ignored. Values are compared lower-cased and with runs of white
    space as one space: the benchmark's text is lower-cased by its encoder's tokenizer.
    """

    correct: int = 0
    total: int = 0

    def update(self, predicted: Mapping[str, Set[str]], gold: Mapping[str, Set[str]]) -> None:
        """Count one product's values, given per attribute."""
        for attribute, values in gold.items():
            wanted = {_canonical(value) for value in values}
            found = {_canonical(value) for value in predicted.get(attribute, ())}
            self.total += len(wanted)
            self.correct += len(wanted) if found == wanted else 0

    def compute(self) -> dict[str, float]:
        """Return the accuracy and its counts."""
        return {"accuracy": ratio(self.correct, self.total), **asdict(self)}


@dataclass(slots=True)
class ExtractionMetrics(Tally):
    """Every metric of extractions against gold."""

    num_products: int = 0
    tag: TagMetric = field(default_factory=TagMetric)
    cls: ClsMetric = field(default_factory=ClsMetric)
    accuracy: AccuracyMetric = field(default_factory=AccuracyMetric)
    calibration: CalibrationMetric = field(default_factory=CalibrationMetric)

    def update(self, gold: Sequence[GoldSpan], extraction: Extraction) -> None:
        """Count one labelled product."""
        self.num_products += 1
        self.tag.update(predicted_spans(extraction), gold_spans(gold))
        self.cls.update(predicted_attributes(extraction), {span.attribute for span in gold})
        self.accuracy.update(
            values_by_attribute((value.attribute, value.value) for value in extraction.values),
            values_by_attribute((span.attribute, span.value) for span in gold),
        )
        judged = judge_values(gold, extraction)
        self.calibration.update(
            [value.confidence for value in judged], [value.correct for value in judged]
        )

    def compute(self) -> dict[str, Any]:
        """Return all figures, nested and plain, for JSON."""
        return {
            "num_products": self.num_products,
            "tag": self.tag.compute(),
            "cls": self.cls.compute(),
            "mae": self.accuracy.compute(),
            "calibration": self.calibration.compute(),
        }


def gold_spans(gold: Sequence[GoldSpan]) -> set[SpanKey]:
    """Return the spans of a product's annotation."""
    return {SpanKey(span.attribute, span.source, span.start, span.end) for span in gold}


def predicted_spans(extraction: Extraction) -> set[SpanKey]:
    """Return the spans of a product's values."""
    return {SpanKey(v.attribute, v.source, v.start, v.end) for v in extraction.values}


def predicted_attributes(extraction: Extraction) -> set[str]:
    """Return attributes scored above .5; without a range, those that have a value.

    A range cut above .5 hides attributes from this: evaluate with a lower range threshold.
    """
    if not extraction.range:
        return {value.attribute for value in extraction.values}
    return {entry.attribute for entry in extraction.range if entry.score > CLS_THRESHOLD}


def judge_values(gold: Sequence[GoldSpan], extraction: Extraction) -> list[JudgedValue]:
    """Return each predicted value with its confidence and whether its exact span is gold."""
    wanted = gold_spans(gold)
    return [
        JudgedValue(
            value.attribute,
            value.confidence,
            SpanKey(value.attribute, value.source, value.start, value.end) in wanted,
        )
        for value in extraction.values
    ]


def values_by_attribute(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the distinct values of each attribute."""
    values: dict[str, set[str]] = {}
    for attribute, value in pairs:
        values.setdefault(attribute, set()).add(value)
    return values


def _canonical(value: str) -> str:
    return " ".join(value.lower().split())


def _total(counts: Mapping[str, Counts]) -> Counts:
    total = Counts()
    for part in counts.values():
        total.merge(part)
    return total


def _compute_counts(counts: Mapping[str, Counts]) -> dict[str, dict[str, float]]:
    return {attribute: counts[attribute].compute() for attribute in sorted(counts)}
