from __future__ import annotations

import random
from decimal import Decimal

import pytest

from pipelines.prepare.rows import (
    MAX_VALUE_CHARS,
    RowError,
    check_texts,
    match_specs,
    num_overlaps,
    order_spans,
    specs_of,
)
from ulsdram_core.schema import GoldSpan


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"title": None}, "empty_text"),
        ({"title": " \n", "description": ""}, "empty_text"),
        ({"title": 3}, "wrong_type"),
        ({"title": ["a"]}, "wrong_type"),
        ({"title": "x" * 11}, "text_too_long"),
        ({"title": "a \ud800"}, "invalid_text"),
    ],
)
def test_unusable_texts(texts, reason):
    with pytest.raises(RowError) as error:
        check_texts(texts, max_chars=10)
    assert error.value.reason == reason


def test_texts_are_not_touched():
    assert check_texts({"title": " <b>&amp;", "description": None}, max_chars=10) == {
        "title": " <b>&amp;",
        "description": "",
    }


@pytest.mark.parametrize(
    "given",
    [
        {"colour": ["red", "blue"], "size": 3, "none": None, "blank": ""},
        [("colour", "red"), ["colour", "blue"], ("size", 3)],
        [
            {"attribute": "colour", "value": "red"},
            {"attribute": " colour", "value": "blue "},
            {"attribute": "size", "value": 3},
        ],
    ],
)
def test_specs_in_every_shape(given):
    read = specs_of(given, max_values=10)
    assert read.left_out == []
    assert read.specs == [("colour", "red"), ("colour", "blue"), ("size", "3")]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("colour", "wrong_type"),
        (3, "wrong_type"),
        ({str(n): "x" for n in range(11)}, "too_many_values"),
    ],
)
def test_unusable_specs(given, reason):
    with pytest.raises(RowError) as error:
        specs_of(given, max_values=10)
    assert error.value.reason == reason


@pytest.mark.parametrize("odd", [3, ("a", True), ("a", {"b": 1}), ("a", "\ud800"), ("\ud800", "x")])
def test_an_odd_value_is_left_out_and_the_others_stay(odd):
    read = specs_of([odd, ("colour", "red"), ("size", Decimal("4.50"))], max_values=10)
    assert read.specs == [("colour", "red"), ("size", "4.50")]
    [problem] = read.note(7)
    assert (problem.line, problem.reason, problem.num_rows) == (7, "wrong_type", 0)
    assert "1 values were left out" in problem.detail


def test_overlaps_are_counted_like_by_hand():
    rng = random.Random(1)
    spans = []
    for number in range(60):
        start = rng.randrange(40)
        source = rng.choice(["title", "description"])
        spans.append(GoldSpan(str(number), "v", start, start + rng.randint(1, 6), source))
    by_hand = sum(
        one.source == other.source and one.start < other.end and other.start < one.end
        for place, one in enumerate(spans)
        for other in spans[place + 1 :]
    )
    assert num_overlaps(spans) == by_hand > 0


def test_spans_stand_in_reading_order_once():
    inner, outer = GoldSpan("a", "x", 0, 1), GoldSpan("b", "xy", 0, 2)
    late = GoldSpan("a", "x", 0, 1, "description")
    ordered = order_spans([late, inner, outer, inner], ["title", "description"])
    assert ordered == [outer, inner, late]


def test_long_values_are_missing_not_sought():
    long = "a " * MAX_VALUE_CHARS
    matches = match_specs({"title": long}, [("x", long), ("y", "a"), ("y", "b")])
    assert {span.attribute for span in matches.spans} == {"y"}
    assert matches.missing == (("y", "b"), ("x", long))


@pytest.mark.timeout(60)
def test_hostile_values_cost_bounded_time():
    value = "a " * (MAX_VALUE_CHARS // 2 - 1)
    specs = [("x", f"{value}{letter}") for letter in "bcdefghij"]
    assert match_specs({"title": "a " * 20_000}, specs).missing == tuple(specs)
