"""Whether confidences mean what they say, and which threshold to publish at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from ulsdram_core.counts import Counts, Tally

NUM_BINS = 15
# Confidences are summed in whole billionths, so that merging in any order gives the same sums.
CONFIDENCE_UNITS = 10**9


@dataclass(slots=True)
class CalibrationMetric(Tally):
    """Expected calibration error over `NUM_BINS` equal confidence bins; 1.0 is in the last."""

    count: list[int] = field(default_factory=lambda: [0] * NUM_BINS)
    correct: list[int] = field(default_factory=lambda: [0] * NUM_BINS)
    confidence_units: list[int] = field(default_factory=lambda: [0] * NUM_BINS)

    def update(self, confidence: Sequence[float], correct: Sequence[bool]) -> None:
        """Count predicted values: their confidences, and whether each is right."""
        for probability, is_correct in zip(confidence, correct, strict=True):
            if not 0.0 <= probability <= 1.0:
                raise ValueError(
                    f"confidence is {probability}, expected 0 to 1; pass probabilities, not scores"
                )
            place = min(int(probability * NUM_BINS), NUM_BINS - 1)
            self.count[place] += 1
            self.correct[place] += bool(is_correct)
            self.confidence_units[place] += round(probability * CONFIDENCE_UNITS)

    def compute(self) -> dict[str, Any]:
        """Return `ece`, and the reliability table: one row per bin that holds values."""
        total = sum(self.count)
        rows = [self._row(place) for place in range(NUM_BINS) if self.count[place]]
        gaps = sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows)
        return {"ece": gaps / total if total else 0.0, "num_values": total, "reliability": rows}

    def _row(self, place: int) -> dict[str, Any]:
        count = self.count[place]
        return {
            "low": place / NUM_BINS,
            "high": (place + 1) / NUM_BINS,
            "count": count,
            "confidence": self.confidence_units[place] / CONFIDENCE_UNITS / count,
            "accuracy": self.correct[place] / count,
        }


class ThresholdChoice(NamedTuple):
    """Values with confidence >= threshold are kept; what that gave on the data it was chosen on."""

    threshold: float
    precision: float
    recall: float
    num_kept: int


def choose_threshold(
    confidence: Sequence[float],
    correct: Sequence[bool],
    num_gold: int,
    target_precision: float,
    *,
    certainty: float | None = None,
) -> ThresholdChoice | None:
    """Return the lowest threshold whose precision reaches the target; None if none does.

    With `certainty`, say .95, it is the one-sided lower confidence bound (Wilson) of the precision
    that must reach the target, so that few lucky values do not set the threshold.
    """
    if not 0.0 < target_precision <= 1.0:
        raise ValueError(f"target_precision is {target_precision}, expected above 0 and up to 1")
    if len(confidence) != len(correct):
        raise ValueError(f"confidence has {len(confidence)} entries for {len(correct)} of correct")
    scores = np.asarray(confidence, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    num_correct = np.cumsum(np.asarray(correct, dtype=np.int64)[order])
    num_kept = np.arange(1, len(scores) + 1)
    precision = num_correct / num_kept
    reached = precision if certainty is None else _wilson_lower(precision, num_kept, certainty)
    # Equal confidences are kept or dropped together: only the last of a tie is a threshold.
    is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    candidates = np.flatnonzero(is_last & (reached >= target_precision))
    if not candidates.size:
        return None
    chosen = int(candidates[-1])
    return ThresholdChoice(
        threshold=float(scores[chosen]),
        precision=float(precision[chosen]),
        recall=float(num_correct[chosen] / num_gold) if num_gold else 0.0,
        num_kept=chosen + 1,
    )


def choose_thresholds(
    judged: Iterable[tuple[str, float, bool]],
    num_gold: Mapping[str, int],
    target_precision: float,
    *,
    certainty: float | None = None,
) -> dict[str, ThresholdChoice | None]:
    """Return the threshold of each attribute of (attribute, confidence, correct) or of num_gold."""
    by_attribute: dict[str, tuple[list[float], list[bool]]] = {name: ([], []) for name in num_gold}
    for attribute, confidence, is_correct in judged:
        confidences, corrects = by_attribute.setdefault(attribute, ([], []))
        confidences.append(confidence)
        corrects.append(is_correct)
    return {
        name: choose_threshold(
            *by_attribute[name], num_gold.get(name, 0), target_precision, certainty=certainty
        )
        for name in sorted(by_attribute)
    }


def confidence_sweep(
    confidence: Sequence[float], correct: Sequence[bool], num_gold: int, limits: Sequence[float]
) -> list[dict[str, float]]:
    """Return precision, recall and F1 of the values at least as sure as each of `limits`."""
    scores = np.asarray(confidence, dtype=np.float64)
    is_correct = np.asarray(correct, dtype=bool)
    rows = []
    for limit in limits:
        kept = scores >= limit
        counts = Counts(int((kept & is_correct).sum()), int(kept.sum()), num_gold)
        rows.append({"confidence": limit, **counts.rates()})
    return rows


def _wilson_lower(precision: np.ndarray, num_kept: np.ndarray, certainty: float) -> np.ndarray:
    if not 0.5 <= certainty < 1.0:
        raise ValueError(f"certainty is {certainty}, expected .5 up to, not including, 1")
    z = NormalDist().inv_cdf(certainty)
    centre = precision + z**2 / (2 * num_kept)
    spread = z * np.sqrt(precision * (1 - precision) / num_kept + z**2 / (4 * num_kept**2))
    return (centre - spread) / (1 + z**2 / num_kept)
