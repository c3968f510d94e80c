from __future__ import annotations

import pytest

from pipelines.prepare.rows import RowError
from pipelines.prepare.target_scores import match_target_scores
from ulsdram_core.schema import GoldSpan

TEXTS = {"title": "HP Xeon E5335 G5", "description": "Intel Xeon E5335, 4-core"}


def match(scores, texts=TEXTS):
    return match_target_scores(texts, scores, max_values=10)


def test_pid_names_the_texts():
    found = match(
        {
            "Type": {"Xeon E5335": {"pid": [0], "score": 1}},
            "Core": {"4-core": {"pid": [1], "score": 1}},
            "Both": {"E5335": {"pid": [0, 1], "score": 1}},
        }
    )
    assert set(found.spans) == {
        GoldSpan("Type", "Xeon E5335", 3, 13),
        GoldSpan("Core", "4-core", 18, 24, "description"),
        GoldSpan("Both", "E5335", 8, 13),
        GoldSpan("Both", "E5335", 11, 16, "description"),
    }
    assert found.missing == ()


def test_a_value_of_another_text_is_missing():
    found = match({"Core": {"4-core": {"pid": [0], "score": 1}}})
    assert (found.spans, found.missing) == ((), (("Core", "4-core"),))


def test_absent_and_unwanted_values_do_not_count():
    found = match({"A": {"n/a": 1}, "B": {"N/A": {"pid": [0]}}, "C": {"HP": 0}, "D": {}})
    assert (found.spans, found.found, found.missing) == ((), (), ())


def test_plain_scores_are_sought_everywhere():
    assert [span.source for span in match({"A": {"Xeon": 1}}).spans] == ["title", "description"]


@pytest.mark.parametrize(
    "scores", [{"A": ["x"]}, {"A": "x"}, {"A": {str(n): 1 for n in range(11)}}]
)
def test_wrong_shapes_are_row_errors(scores):
    with pytest.raises(RowError):
        match(scores)
