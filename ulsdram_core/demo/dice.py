"""Seeded chance whose sequence is the same on every Python and numpy version."""

import random
from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A random stream named by its key: equal keys roll equal numbers.

    Only `random.Random.random` is used, the one method whose sequence Python guarantees.
    """

    def __init__(self, *key: object) -> None:
        digest = sha256("/".join(map(str, key)).encode()).digest()
        self._roll = random.Random(int.from_bytes(digest[:8], "big")).random

    def chance(self, share: float) -> bool:
        """Return True in `share` of the rolls."""
        return self._roll() < share

    def between(self, low: float, high: float) -> float:
        """Return a number uniform in [low, high)."""
        return low + (high - low) * self._roll()

    def integer(self, low: int, high: int) -> int:
        """Return a number uniform in low..high, both included."""
        return low + int(self._roll() * (high - low + 1))

    def choose(self, items: Sequence[T]) -> T:
        """Return one of the items, all equally likely."""
        return items[int(self._roll() * len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """Return one of the items, in proportion to its weight."""
        left = self._roll() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in random order."""
        return [item for _, _, item in sorted((self._roll(), i, x) for i, x in enumerate(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` different items in random order (all of them when there are fewer)."""
        return self.shuffled(items)[:count]
