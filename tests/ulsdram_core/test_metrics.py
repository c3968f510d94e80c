"""Metrics on hand-worked products; merging workers' counts equals counting at once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ulsdram_core.counts import Counts
from ulsdram_core.metrics import (
    AccuracyMetric,
    ClsMetric,
    ExtractionMetrics,
    TagMetric,
    judge_values,
)
from ulsdram_core.schema import AttributeScore, Extraction, GoldSpan, Status, Value

AS_JSON = TypeAdapter(ExtractionMetrics)
TEXT = "blue jeans match blue spirits"


def make_extraction(values=(), scores=()):
    return Extraction(
        "p1",
        Status.OK,
        None,
        values=tuple(Value(*value) for value in values),
        range=tuple(AttributeScore(*score) for score in scores),
    )


def test_counts_without_anything_are_zero():
    assert Counts().compute() == {
        "precision": 0.0, "recall": 0.0, "f1": 0.0, "correct": 0, "predicted": 0, "gold": 0
    }  # fmt: skip


def test_tag_counts_exact_spans_of_an_attribute_in_a_source():
    metric = TagMetric()
    gold = {("color", "title", 0, 4), ("type", "title", 5, 10)}
    metric.update({("color", "title", 0, 4), ("type", "title", 0, 10)}, gold)
    metric.update({("color", "description", 0, 4)}, {("color", "title", 0, 4)})
    result = metric.compute()
    assert result["micro"]["correct"] == 1
    assert result["micro"]["precision"] == pytest.approx(1 / 3)
    assert result["micro"]["recall"] == pytest.approx(1 / 3)
    assert result["per_attribute"]["color"]["f1"] == pytest.approx(0.5)
    assert result["per_attribute"]["type"]["f1"] == 0.0
    assert result["macro"]["f1"] == pytest.approx(0.25)


def test_two_attributes_may_claim_the_same_text():
    metric = TagMetric()
    spans = {("usage", "title", 0, 6), ("type", "title", 0, 6)}
    metric.update(spans, spans)
    assert metric.compute()["micro"]["f1"] == 1.0


def test_cls_in_both_conventions():
    metric = ClsMetric()
    metric.update({"color", "fit"}, {"color"})
    metric.update(set(), {"color"})  # predicted: no attribute
    metric.update(set(), set())  # rightly no attribute
    metric.update({"fit"}, set())  # missed: no attribute
    result = metric.compute()
    jave, released = result["cls_jave"], result["cls_released"]
    assert (jave["correct"], jave["predicted"], jave["gold"]) == (1, 3, 2)
    assert (released["correct"], released["predicted"], released["gold"]) == (2, 5, 4)
    assert result["per_attribute"]["color"]["recall"] == 0.5


@pytest.mark.parametrize(
    ("predicted", "correct"),
    [
        ({"Color": {"blue"}}, 1),  # (1) "B O O B O" and "B O O O O" both give [blue]
        ({"Color": {"blue", "spirits"}}, 0),  # (2)
        ({}, 0),  # (3)
        ({"Color": {"blue spirits"}}, 0),  # (3)
        ({"Color": {"blue"}, "Type": {"jeans"}}, 1),  # (4) extra attributes do not matter
    ],
)
def test_accuracy_of_the_papers_examples(predicted, correct):
    metric = AccuracyMetric()
    metric.update(predicted, {"Color": {"blue"}})
    assert metric.compute() == {"accuracy": correct, "correct": correct, "total": 1}


def test_accuracy_of_the_papers_examples_from_spans():
    both_blues = [("Color", "blue", "title", 0, 4, 0.9), ("Color", "blue", "title", 17, 21, 0.9)]
    assert {TEXT[value[3] : value[4]] for value in both_blues} == {"blue"}
    metrics = ExtractionMetrics()
    metrics.update([GoldSpan("Color", "blue", 0, 4)], make_extraction(both_blues))
    assert metrics.compute()["mae"]["accuracy"] == 1.0
    assert metrics.compute()["tag"]["micro"]["precision"] == 0.5


def test_accuracy_weighs_attributes_by_their_gold_values():
    metric = AccuracyMetric()
    metric.update({"a": {"x", "y"}, "b": {"z"}}, {"a": {"x", "y"}, "b": {"w"}})
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3), "correct": 2, "total": 3}


def test_accuracy_ignores_case_and_white_space():
    metric = AccuracyMetric()
    metric.update({"a": {"Navy  Blue"}}, {"a": {"navy blue", "NAVY BLUE"}})
    assert metric.compute() == {"accuracy": 1.0, "correct": 1, "total": 1}


def test_everything_of_one_product():
    gold = [GoldSpan("color", "blue", 0, 4), GoldSpan("type", "jeans", 5, 10)]
    extraction = make_extraction(
        [("color", "blue", "title", 0, 4, 0.9), ("type", "blue jeans", "title", 0, 10, 0.6)],
        [("color", 0.95), ("type", 0.5), ("fit", 0.7)],
    )
    metrics = ExtractionMetrics()
    metrics.update(gold, extraction)
    result = metrics.compute()
    assert result["num_products"] == 1
    assert result["tag"]["micro"]["f1"] == 0.5
    # .5 itself is not above the threshold.
    assert result["cls"]["cls_jave"]["correct"] == 1
    assert result["cls"]["cls_jave"]["predicted"] == 2
    assert result["mae"]["accuracy"] == 0.5
    assert result["calibration"]["ece"] == pytest.approx((0.1 + 0.6) / 2)
    assert judge_values(gold, extraction) == [("color", 0.9, True), ("type", 0.6, False)]
    json.dumps(result, allow_nan=False)


def test_without_a_range_the_values_say_which_attributes_are_there():
    metrics = ExtractionMetrics()
    extraction = make_extraction([("color", "blue", "title", 0, 4, 0.9)])
    metrics.update([GoldSpan("color", "blue", 0, 4)], extraction)
    assert metrics.compute()["cls"]["cls_jave"]["f1"] == 1.0


ATTRIBUTES = st.sampled_from(["color", "type", "fit"])
STARTS = st.integers(0, 3)


@st.composite
def labelled_products(draw):
    gold = [
        GoldSpan(attribute, TEXT[start : start + 4], start, start + 4)
        for attribute, start in draw(st.sets(st.tuples(ATTRIBUTES, STARTS), max_size=4))
    ]
    values = [
        (attribute, TEXT[start : start + 4], "title", start, start + 4, confidence)
        for attribute, start, confidence in draw(
            st.lists(st.tuples(ATTRIBUTES, STARTS, st.floats(0, 1)), max_size=4)
        )
    ]
    scores = draw(st.dictionaries(ATTRIBUTES, st.floats(0, 1)))
    return gold, make_extraction(values, scores.items())


@given(products=st.lists(labelled_products(), max_size=8), cut=st.integers(0, 8))
def test_merged_equals_joint_and_survives_json(products, cut):
    joint, one, other = ExtractionMetrics(), ExtractionMetrics(), ExtractionMetrics()
    for metrics, part in ((joint, products), (one, products[:cut]), (other, products[cut:])):
        for gold, extraction in part:
            metrics.update(gold, extraction)
    other.merge(AS_JSON.validate_json(AS_JSON.dump_json(one)))
    assert other == joint
    assert other.compute() == joint.compute()
