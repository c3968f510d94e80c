"""Counts that workers add up: merged counts equal joint counts."""

from collections.abc import Set
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(slots=True)
class Tally:
    """A dataclass of numbers, of tallies, and of lists and dicts of them."""

    def merge(self, other: Self) -> None:
        """Add another worker's counts."""
        for part in fields(self):
            setattr(self, part.name, _sum(getattr(self, part.name), getattr(other, part.name)))


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, Tally):
        one.merge(other)
        return one
    if isinstance(one, list):
        return [_sum(a, b) for a, b in zip(one, other, strict=True)]
    if isinstance(one, dict):
        return one | {name: _sum(one.get(name, type(n)()), n) for name, n in other.items()}
    return one + other


@dataclass(slots=True)
class Counts(Tally):
    """Predicted, gold, and correctly predicted things."""

    correct: int = 0
    predicted: int = 0
    gold: int = 0

    def update(self, predicted: Set[Any], gold: Set[Any]) -> None:
        """Count one product's things."""
        self.correct += len(predicted & gold)
        self.predicted += len(predicted)
        self.gold += len(gold)

    def rates(self) -> dict[str, float]:
        """Return precision, recall and f1."""
        return {
            "precision": ratio(self.correct, self.predicted),
            "recall": ratio(self.correct, self.gold),
            "f1": ratio(2 * self.correct, self.predicted + self.gold),
        }

    def compute(self) -> dict[str, float]:
        """Return precision, recall, f1 and the counts."""
        return {**self.rates(), **asdict(self)}


def ratio(part: float, whole: float) -> float:
    """Return the part's share of the whole; 0 where there is no whole."""
    return part / whole if whole else 0.0
