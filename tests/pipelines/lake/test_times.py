"""The order of versions: the newest stays the newest, whatever the column holds."""

from datetime import UTC, date, datetime

import polars as pl
import pyarrow as pa
import pytest

from pipelines.lake.times import NO_TIME, update_order

ASCENDING = [
    "0001-01-01",
    "1650-01-01T10:00:00",
    "1969-12-31T23:59:59.999999999Z",
    "1970-01-01",
    "2024-01-01T00:00:00+05:30",
    "2024-01-01",
    "2024-01-01T00:00:00.000000001",
    "2024-01-01 00:00:00.5Z",
    "2024-01-01T00:00-01",
    "2024-01-01 09:30:00 UTC",
    "2024-02-29 10",
    "2500-01-01",
    "9999-12-31T23:59:59Z",
]


def order(values, kind=None) -> list[int]:
    column = pl.Series(pl.from_arrow(pa.array(values, kind)))
    return update_order(column).to_list()


def assert_ascends(numbers):
    assert numbers == sorted(set(numbers))
    assert numbers[0] > NO_TIME


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.string_view()])
def test_texts_are_ordered_each_by_itself(kind):
    numbers = order([*ASCENDING, "", None, "soon", "2024-02-30", "2024-13-01"], kind)
    assert_ascends(numbers[: len(ASCENDING)])
    assert numbers[len(ASCENDING) :] == [NO_TIME] * 5
    assert [order([text], kind)[0] for text in ASCENDING] == numbers[: len(ASCENDING)]


def test_one_cell_of_broken_bytes_costs_only_itself():
    found = order([b"2024-01-01", b"\xff\xfe", b"2024-01-02Z"], pa.binary())
    assert found == [*order(["2024-01-01"]), NO_TIME, NO_TIME]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_of_all_units_and_texts_give_one_number(unit, zone):
    moment = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    (found,) = order([moment], pa.timestamp(unit, zone))
    assert found == order(["2024-05-06T07:08:09Z"])[0]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_its_midnight(kind):
    assert order([date(2024, 5, 6), None], kind) == [*order(["2024-05-06"]), NO_TIME]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([-(2**63), -1, 0, 1, 999, 1000, 2**63 - 1], pa.timestamp("ns")),
        ([-(2**60), -1, 0, 1, 2**52, 2**60], pa.timestamp("us")),
        ([-5, 0, 3, 2**62 - 1, 2**62, 2**63 - 1], pa.int64()),
        ([0, 3, 2**62, 2**63 + 1, 2**63 + 5, 2**64 - 1], pa.uint64()),
        ([-128, 127], pa.int8()),
    ],
)
def test_extreme_numbers_keep_their_order(values, kind):
    assert_ascends(order(values, kind))


def test_integers_of_all_kinds_give_one_number():
    assert order([7, 2**63 - 1], pa.int64()) == order([7, 2**63 - 1], pa.uint64())


@pytest.mark.parametrize("values", [[1.5, None], [True, False], [[1], [2]], [None, None]])
def test_what_is_no_time_has_none(values):
    assert order(values) == [NO_TIME, NO_TIME]
