from __future__ import annotations

import pytest

from pipelines.prepare.matching import MAX_VALUE_CHARS, match_specs


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
