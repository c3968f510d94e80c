"""Calibration error and thresholds on hand-worked numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulsdram_core.calibration import (
    NUM_BINS,
    CalibrationMetric,
    choose_threshold,
    choose_thresholds,
    confidence_sweep,
)


def test_error_of_two_bins():
    metric = CalibrationMetric()
    metric.update([0.9, 0.9, 0.9, 0.9], [True, True, True, False])
    metric.update([0.1], [False])
    result = metric.compute()
    # (4 x |.75 - .9| + 1 x |0 - .1|) / 5
    assert result["ece"] == pytest.approx(0.14)
    assert result["num_values"] == 5
    low, high = result["reliability"]
    assert low["low"] < 0.1 < low["high"]
    assert (high["count"], high["accuracy"]) == (4, 0.75)
    assert high["confidence"] == pytest.approx(0.9)


def test_bounds_and_nothing():
    metric = CalibrationMetric()
    assert metric.compute() == {"ece": 0.0, "num_values": 0, "reliability": []}
    metric.update([0.0, 1.0], [False, True])
    assert metric.compute()["ece"] == 0.0
    assert metric.count[0] == metric.count[NUM_BINS - 1] == 1


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence is"):
        CalibrationMetric().update([confidence], [True])


@given(
    values=st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40),
    cut=st.integers(0, 40),
)
def test_merged_equals_joint(values, cut):
    joint, one, other = CalibrationMetric(), CalibrationMetric(), CalibrationMetric()
    for metric, part in ((joint, values), (one, values[:cut]), (other, values[cut:])):
        metric.update([v[0] for v in part], [v[1] for v in part])
    other.merge(one)
    assert other == joint


def test_lowest_threshold_that_reaches_the_target():
    confidence = [0.9, 0.8, 0.7, 0.6, 0.5]
    correct = [True, False, True, True, False]
    # Precisions going down: 1, 1/2, 2/3, 3/4, 3/5.
    choice = choose_threshold(confidence, correct, 4, 0.7)
    assert choice == (0.6, 0.75, 0.75, 4)
    assert choose_threshold(confidence, correct, 4, 0.8).threshold == 0.9
    assert choose_threshold(confidence, correct, 4, 0.6).num_kept == 5


def test_ties_are_kept_together():
    # Keeping .8 means keeping the wrong one too.
    assert choose_threshold([0.8, 0.8, 0.5], [True, False, False], 1, 0.9) is None
    assert choose_threshold([0.8, 0.8, 0.5], [True, False, False], 1, 0.5).threshold == 0.8


def test_certainty_asks_for_more_values():
    lucky = choose_threshold([0.9, 0.8], [True, True], 2, 0.9, certainty=0.95)
    assert lucky is None
    # Wilson's bound of n out of n is n / (n + z^2); z^2 = 2.7055: 25 / 27.7 > .9 > 24 / 26.7.
    many = [0.9] * 25
    assert choose_threshold(many, [True] * 25, 25, 0.9, certainty=0.95).num_kept == 25
    assert choose_threshold(many[:24], [True] * 24, 25, 0.9, certainty=0.95) is None


def test_nothing_to_choose_from():
    assert choose_threshold([], [], 3, 0.5) is None
    assert choose_threshold([0.5], [False], 0, 0.5) is None
    with pytest.raises(ValueError, match="target_precision is"):
        choose_threshold([0.5], [True], 1, 1.5)
    with pytest.raises(ValueError, match="certainty is 1"):
        choose_threshold([0.5], [True], 1, 0.5, certainty=1.0)
    with pytest.raises(ValueError, match="1 entries for 2"):
        choose_threshold([0.5], [True, True], 1, 0.5)


def test_thresholds_per_attribute():
    judged = [("color", 0.9, True), ("color", 0.4, False), ("fit", 0.7, False)]
    choices = choose_thresholds(judged, {"color": 2, "sleeve": 1}, 0.9)
    assert choices["color"] == (0.9, 1.0, 0.5, 1)
    assert choices["fit"] is None
    assert choices["sleeve"] is None


@given(
    values=st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.booleans()), max_size=30),
    target=st.sampled_from([0.25, 0.5, 0.8, 1.0]),
)
def test_threshold_equals_trying_all(values, target):
    confidence = np.array([v[0] for v in values])
    correct = np.array([v[1] for v in values], dtype=bool)
    good = [t for t in set(confidence.tolist()) if correct[confidence >= t].mean() >= target]
    choice = choose_threshold(confidence, correct, len(values), target)
    assert (choice.threshold if choice else None) == min(good, default=None)


def test_a_sweep_counts_the_values_at_least_that_sure():
    rows = confidence_sweep([0.9, 0.6, 0.6, 0.2], [True, True, False, False], 4, (0.0, 0.6, 0.95))
    found = [(r["confidence"], r["precision"], r["recall"], round(r["f1"], 3)) for r in rows]
    assert found == [(0.0, 0.5, 0.5, 0.5), (0.6, 2 / 3, 0.5, 0.571), (0.95, 0.0, 0.0, 0.0)]
    assert confidence_sweep([], [], 0, (0.5,))[0]["f1"] == 0.0
