"""New values and drift between two states against plain answers; time travel itself."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from deltalake import DeltaTable

from pipelines import analysis as a
from pipelines.lake.frames import collect
from pipelines.lake.history import Commit, find_commit, matching_commit


@pytest.fixture(scope="module", params=range(4))
def two_states(request, tmp_path_factory, make_rows, publish):
    tmp_path = tmp_path_factory.mktemp("table")
    before = make_rows(request.param)
    after = make_rows(request.param + 100, size=70, run_id="r2")[:50] + before[50:]
    publish(tmp_path / "t", before, "r1")
    uri = publish(tmp_path / "t", after, "r2")
    return before, after, a.table(uri)


def pairs_of(rows: list[dict]) -> list[tuple[str, str, dict]]:
    return [
        (value["attribute"], value["normalized"] or value["value"], value)
        for row in rows
        if row["status"] != "vanished"
        for value in row["values"] or []
    ]


def test_new_values(two_states, assert_answer):
    before, after, table = two_states
    known = {pair[:2] for pair in pairs_of(before)}
    groups = defaultdict(list)
    for attribute, normalized, value in pairs_of(after):
        if (attribute, normalized) not in known:
            groups[attribute, normalized].append(value)
    expected = [
        {
            "attribute": attribute,
            "normalized": normalized,
            "count": len(values),
            "mean_confidence": sum(v["confidence"] for v in values) / len(values),
            "example": min(v["value"] for v in values),
        }
        for (attribute, normalized), values in groups.items()
    ]
    expected.sort(key=lambda row: (-row["count"], row["attribute"], row["normalized"]))
    assert_answer(table.new_values("r1"), expected)
    assert_answer(table.new_values("r2"), [])


def plain_state(rows: list[dict]) -> dict[str, tuple[int, float, float]]:
    num_live = sum(row["status"] != "vanished" for row in rows)
    state = {}
    for attribute in {pair[0] for pair in pairs_of(rows)}:
        filled = sum(
            any(value["attribute"] == attribute for value in row["values"] or [])
            for row in rows
            if row["status"] != "vanished"
        )
        own = [value["confidence"] for name, _, value in pairs_of(rows) if name == attribute]
        state[attribute] = (filled, filled / num_live, sum(own) / len(own))
    return state


def plain_drift(before: list[dict], after: list[dict]) -> list[dict]:
    old, new = plain_state(before), plain_state(after)
    expected = []
    for attribute in old.keys() | new.keys():
        a_side, b_side = (
            Counter(normalized for name, normalized, _ in pairs_of(rows) if name == attribute)
            for rows in (before, after)
        )
        shift = None
        if a_side and b_side:
            shift = (
                sum(
                    abs(a_side[value] / a_side.total() - b_side[value] / b_side.total())
                    for value in a_side.keys() | b_side.keys()
                )
                / 2
            )
        was, now = old.get(attribute, (0, 0, None)), new.get(attribute, (0, 0, None))
        expected.append(
            {
                "attribute": attribute,
                "filled_before": was[0],
                "filled_after": now[0],
                "coverage_before": was[1],
                "coverage_after": now[1],
                "coverage_change": now[1] - was[1],
                "confidence_before": was[2],
                "confidence_after": now[2],
                "value_shift": shift,
                "new_values": len(b_side.keys() - a_side.keys()),
                "lost_values": len(a_side.keys() - b_side.keys()),
            }
        )
    return expected


def by_name(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: row["attribute"])


def test_drift(two_states, assert_answer):
    before, after, table = two_states
    assert_answer(table.drift("r1").sort("attribute"), by_name(plain_drift(before, after)))
    changes = table.drift("r1").collect()["coverage_change"].abs()
    assert changes.is_sorted(descending=True)


def test_drift_of_an_attribute_that_is_only_on_one_side(
    tmp_path, make_rows, publish, assert_answer
):
    before, after = make_rows(1), make_rows(2, run_id="r2")
    for rows, gone in ((before, "color"), (after, "size")):
        for row in rows:
            row["values"] = [v for v in row["values"] or [] if v["attribute"] != gone]
    publish(tmp_path / "t", before, "r1")
    table = a.table(publish(tmp_path / "t", after, "r2"))
    assert_answer(table.drift("r1").sort("attribute"), by_name(plain_drift(before, after)))


def test_drift_between_two_tables(tmp_path, make_rows, publish, assert_answer):
    before, after = make_rows(5), make_rows(6)
    tables = [
        a.table(publish(tmp_path / name, rows, "r1"))
        for name, rows in (("x", before), ("y", after))
    ]
    expected = by_name(plain_drift(before, after))
    assert_answer(a.drift(*tables).sort("attribute"), expected)


def test_time_travel_reads_the_state_of_the_moment(two_states):
    before, after, table = two_states
    assert table.commit.version == 2
    for moment, rows in ((1, before), ("1", before), ("r1", before), ("r2", after)):
        found = a.table(table.storage.uri, at=moment).extractions().collect()
        assert sorted(found["product_id"]) == sorted(row["product_id"] for row in rows)
    assert table.runs().collect()["run_id"].to_list() == ["r2", "r1", None]


def test_a_vacuumed_version_is_one_clear_line(tmp_path, make_rows, publish):
    publish(tmp_path / "t", make_rows(0), "r1")
    table = a.table(publish(tmp_path / "t", make_rows(1), "r2"))
    delta = DeltaTable(table.storage.join("extractions").uri)
    delta.vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(a.QueryError, match="vacuum"):
        collect(table.at("r1").summary())


def test_quarantine_travels_with_the_run(tmp_path, make_rows, make_quarantine, publish):
    publish(tmp_path / "t", make_rows(0), "r1", make_quarantine(0, 5))
    publish(tmp_path / "t", make_rows(1), "r2", make_quarantine(1, 9))
    table = a.table(publish(tmp_path / "t", make_rows(2), "r3"))
    sizes = {at: table.at(at).quarantine().collect().height for at in ("r1", "r2", "r3", 0)}
    assert sizes == {"r1": 5, "r2": 9, "r3": 9, 0: 0}


HISTORY = [
    Commit(version, datetime(2025, 1, day, tzinfo=UTC), run_id, "WRITE")
    for version, day, run_id in [(3, 1, None), (4, 2, "r1"), (5, 3, "r1"), (6, 4, "7"), (7, 5, "x")]
]


@pytest.mark.parametrize(
    ("moment", "version"),
    [
        ("r1", 5),
        ("7", 6),  # a run spelled like a version
        (7, 7),
        ("4", 4),
        ("2025-01-03", 5),
        ("2025-01-03T12:00:00+00:00", 5),
        (datetime(2025, 1, 3, 1, tzinfo=UTC) + timedelta(days=30), 7),
    ],
)
def test_moments(moment, version):
    assert find_commit(HISTORY, moment).version == version


@pytest.mark.parametrize(
    ("moment", "message"),
    [(99, "3 to 7"), ("99", "3 to 7"), ("r9", "--query runs"), ("2024-01-01", "as old as")],
)
def test_wrong_moments(moment, message):
    with pytest.raises(a.QueryError, match=message):
        find_commit(HISTORY, moment)


def test_matching_commit_prefers_the_run_to_the_time():
    late = Commit(1, datetime(2025, 1, 9, tzinfo=UTC), "x", "WRITE")
    early = Commit(0, datetime(2025, 1, 1, tzinfo=UTC), None, "CREATE TABLE")
    assert matching_commit([early, late], HISTORY[-1]) == late
    assert matching_commit([early, late], HISTORY[1]) == early
    assert matching_commit([late], HISTORY[1]) is None
