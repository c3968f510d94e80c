"""Means over seeds, and paired bootstraps over products."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.benchmark.paper.store import Result

RESAMPLES = 2000
_AT_ONCE = 200

# Numerator, and the counts whose sum is the denominator; F1 = 2 correct / (predicted + gold).
_COUNTS = {
    "tag_f1": ("correct", 2.0, ("predicted", "gold")),
    "accuracy": ("right_values", 1.0, ("gold_values",)),
}


@dataclass(frozen=True)
class Spread:
    """A figure over seeds."""

    mean: float
    sd: float
    """Sample standard deviation; 0 with one seed."""
    num_seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Return mean and deviation."""
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), sd, len(values))


@dataclass(frozen=True)
class Gain:
    """How much better one system is than another on the same products and seeds."""

    gain: float
    low: float
    high: float
    """95% interval of the gain."""
    p: float
    """Twice the share of resamples in which the gain has the other sign, at most 1."""
    num_products: int
    num_seeds: int


def compare(
    one: Sequence[Result], other: Sequence[Result], metric: str, *, seed: int = 0
) -> Gain | None:
    """Return the paired bootstrap of `one` against `other`; None without a common seed.

    Products are resampled; the counts of a product are summed over the common seeds.
    """
    first, second = ({run["seed"]: run["products"] for run in runs} for runs in (one, other))
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    counts = np.stack(
        [sum(_parts(runs[seed], metric) for seed in seeds) for runs in (first, second)]
    )
    num_products = counts.shape[1]
    gain = _gain(counts.sum(1))
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        count = min(_AT_ONCE, RESAMPLES - start)
        weights = generator.multinomial(
            num_products, np.full(num_products, 1 / num_products), count
        )
        drawn.append(_gain(np.einsum("sp,ipc->isc", weights, counts)))
    gains = np.concatenate(drawn)
    low, high = np.quantile(gains, [0.025, 0.975])
    against = float(np.mean(gains <= 0 if gain > 0 else gains >= 0))
    return Gain(
        float(gain), float(low), float(high), min(1.0, 2 * against), num_products, len(seeds)
    )


def _parts(products: Mapping[str, Sequence[int]], metric: str) -> np.ndarray:
    """Return [P, 2]: each product's share of numerator and denominator."""
    numerator, factor, below = _COUNTS[metric]
    top = factor * np.asarray(products[numerator], dtype=float)
    bottom = np.sum([products[name] for name in below], axis=0, dtype=float)
    return np.stack([top, bottom], axis=1)


def _gain(sums: np.ndarray) -> Any:
    """Return the first system's ratio minus the second's; the last axis is (top, bottom)."""
    ratio = sums[..., 0] / np.maximum(sums[..., 1], 1e-12)
    return ratio[0] - ratio[1]
