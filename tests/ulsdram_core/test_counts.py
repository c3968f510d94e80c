"""Counts add up field by field, whatever they are nested in."""

from dataclasses import dataclass, field

import pytest

from ulsdram_core.counts import Counts, Tally


@dataclass(slots=True)
class Nested(Tally):
    number: int = 0
    bins: list[int] = field(default_factory=lambda: [0, 0])
    by_name: dict[str, Counts] = field(default_factory=dict)
    at: list[Counts] = field(default_factory=lambda: [Counts()])


def test_every_kind_of_field_is_merged():
    one = Nested(1, [1, 2], {"a": Counts(1, 2, 3)}, [Counts(1, 1, 1)])
    other = Nested(2, [3, 4], {"a": Counts(1, 1, 1), "b": Counts(0, 5, 0)}, [Counts(0, 1, 2)])
    one.merge(other)
    merged = {"a": Counts(2, 3, 4), "b": Counts(0, 5, 0)}
    assert one == Nested(3, [4, 6], merged, [Counts(1, 2, 3)])
    one.by_name["b"].merge(Counts(1, 1, 1))
    assert other.by_name["b"] == Counts(0, 5, 0), "what was merged is not shared"


def test_lists_of_other_lengths_do_not_fit():
    with pytest.raises(ValueError, match="shorter"):
        Nested().merge(Nested(bins=[1]))
