"""Figures and counts per product, by hand."""

import pytest

from pipelines.benchmark.paper.score import Score, score_extractions
from ulsdram_core.schema import AttributeScore, Extraction, GoldSpan, Product, Status, Value

GOLD = (GoldSpan("color", "red", 0, 3), GoldSpan("type", "shirt", 4, 9))
SHIRT = Product("1", {"title": "red shirt"}, (), "shirts", GOLD)
PLAIN = Product("2", {"title": "thing"}, (), None, ())
CATEGORIES = {"shirts": frozenset({"color", "type"})}


def value(attribute, text, start):
    return Value(attribute, text, "title", start, start + len(text), 0.9)


def extraction(*values, scores=()):
    found = tuple(AttributeScore(name, score) for name, score in scores)
    return Extraction("1", Status.OK, None, values, found)


def test_counts_are_kept_per_product():
    found = [
        extraction(value("color", "red", 0), value("heel", "red", 0), value("type", "red", 0)),
        extraction(value("heel", "thing", 0)),
    ]
    score = score_extractions([SHIRT, PLAIN], found, CATEGORIES)
    assert score.per_product() == {
        "correct": [1, 0],
        "predicted": [3, 1],
        "gold": [2, 0],
        "right_values": [1, 0],
        "gold_values": [2, 0],
        "outside": [1, 0],  # a product without a category counts for none
    }
    figures = score.figures(has_spans=True, has_head=False)
    assert figures["precision"] == pytest.approx(1 / 4)
    assert figures["recall"] == pytest.approx(1 / 2)
    assert figures["tag_f1"] == pytest.approx(2 / 6)
    assert figures["accuracy"] == pytest.approx(1 / 2)
    assert figures["cls_f1"] is None


def test_a_right_value_outside_the_category_is_no_false_positive():
    categories = {"shirts": frozenset({"type"})}
    score = score_extractions([SHIRT], [extraction(value("color", "red", 0))], categories)
    assert score.per_product()["outside"] == [0]


def test_a_head_has_its_own_figure():
    found = extraction(scores=[("color", 0.9), ("heel", 0.8), ("type", 0.4)])
    figures = score_extractions([SHIRT], [found], {}).figures(has_spans=True, has_head=True)
    assert figures["cls_f1"] == pytest.approx(2 / 4)


def test_ranked_values_have_accuracy_alone():
    score = Score()
    score.add_values(SHIRT, {"color": {"RED"}, "type": {"dress"}})
    score.add_values(PLAIN, {})
    figures = score.figures(has_spans=False, has_head=False)
    assert figures.pop("accuracy") == pytest.approx(1 / 2)
    assert set(figures.values()) == {None}
