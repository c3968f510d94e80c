"""Means, deviations and paired bootstraps."""

import statistics

import numpy as np
import pytest

from pipelines.benchmark.paper.statistics import compare, spread


def runs(correct, predicted, gold, *, seeds=(0,)):
    return [
        {"seed": seed, "products": {"correct": correct, "predicted": predicted, "gold": gold}}
        for seed in seeds
    ]


def test_deviation_is_the_samples():
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.num_seeds) == (2.0, 1.0, 3)
    assert spread([5.0]).sd == 0.0


def test_equal_systems_do_not_differ():
    same = runs([1, 0, 2], [2, 1, 2], [2, 1, 3])
    found = compare(same, same, "tag_f1")
    assert (found.gain, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_gain_is_that_of_the_summed_counts():
    one = runs([2, 1], [2, 2], [2, 2], seeds=(0, 1))
    other = runs([1, 1], [2, 2], [2, 2], seeds=(1, 2))
    found = compare(one, other, "tag_f1")
    assert found.gain == pytest.approx(3 / 4 - 2 / 4)
    assert (found.num_seeds, found.num_products) == (1, 2)
    assert compare(one, runs([1], [1], [1], seeds=(7,)), "tag_f1") is None


def test_the_interval_is_that_of_a_plain_bootstrap():
    """Accuracy of products with one value each: the gain is a mean, its spread is known."""
    generator = np.random.default_rng(0)
    first, second = generator.random(400) < 0.8, generator.random(400) < 0.7
    one, other = (
        [{"seed": 0, "products": {"right_values": x.astype(int), "gold_values": [1] * 400}}]
        for x in (first, second)
    )
    found = compare(one, other, "accuracy")
    difference = first.astype(float) - second
    error = difference.std() / 20
    assert found.gain == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(difference.mean() + 1.96 * error, abs=0.01)
    normal = statistics.NormalDist(difference.mean(), error)
    assert found.p == pytest.approx(2 * normal.cdf(0), abs=0.03)
    back = compare(other, one, "accuracy")
    assert back.gain == -found.gain
    assert back.p == pytest.approx(found.p, abs=0.01)
