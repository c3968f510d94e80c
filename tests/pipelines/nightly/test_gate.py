"""The gate's arithmetic."""

import math

import pyarrow as pa
import pytest

from pipelines.checks import FAILED, NOT_JUDGED, PASSED
from pipelines.lake.tables import EXTRACTIONS_SCHEMA
from pipelines.nightly.gate import GateConfig, RunStatistics, run_gate
from pipelines.nightly.plan.plan import PlanCounts


def statistics(ok=0, quarantined=0, degraded=0, empty=0, color=0, size=0) -> RunStatistics:
    status = {"ok": ok, "quarantined": quarantined, "degraded": degraded}
    rows = ok + quarantined + degraded
    return RunStatistics(rows, empty, status, {}, {"color": color, "size": size})


def verdicts(found: RunStatistics, last=None, *, config=None, shown=0, **counts) -> dict[str, str]:
    plan = PlanCounts(**({"rows_in": found.rows, "extract": found.rows} | counts))
    checks = run_gate(plan, found, last, GateConfig(**(config or {})), shown=shown)
    return {check.name: check.verdict for check in checks}


def failed_checks(*arguments, **options) -> set[str]:
    return {name for name, verdict in verdicts(*arguments, **options).items() if verdict == FAILED}


LAST = {"rows_in": 1000, "attribute_rates": {"color": 0.8, "size": 0.1, "rare": 0.001}}


@pytest.mark.parametrize(
    ("found", "counts", "failed"),
    [
        (statistics(ok=1000), {}, set()),
        (statistics(ok=999), {"rows_in": 1000}, {"rows_unaccounted"}),
        (statistics(ok=900, quarantined=100), {}, {"quarantine_rate"}),
        (statistics(ok=900), {"rows_in": 1000, "duplicates": 100}, {"quarantine_rate"}),
        (statistics(ok=900), {"rows_in": 1000, "keyless": 100}, {"quarantine_rate"}),
        (statistics(ok=10, quarantined=90), {}, set()),  # too few rows to judge
        (statistics(ok=1000, empty=990), {}, {"null_rate"}),
        (statistics(degraded=1000), {}, {"degraded_rate"}),
    ],
)
def test_one_night_by_itself(found, counts, failed):
    config = {"max_degraded_rate": 0.5, "max_values_drop": 1.0}
    assert failed_checks(found, config=config, **counts) == failed


@pytest.mark.parametrize(
    ("found", "counts", "failed"),
    [
        (statistics(ok=1000, color=800, size=100), {}, set()),
        (statistics(ok=1000, color=360, size=100), {}, {"drift:color"}),
        (statistics(ok=1000, color=1300, size=100), {}, {"drift:color"}),
        (statistics(ok=1000, color=800, size=20), {}, {"drift:size"}),
        (statistics(ok=9, color=0), {"rows_in": 1000, "unchanged": 991}, set()),
        (statistics(ok=50, color=0), {"rows_in": 1000, "unchanged": 950}, {"values_drop"}),
        (statistics(ok=400, color=320, size=40), {}, {"row_change"}),
        (
            statistics(ok=2000, color=1600, size=200),
            {},
            {"row_change"},
        ),
    ],
)
def test_against_the_last_night(found, counts, failed):
    assert failed_checks(found, LAST, **counts) == failed


@pytest.mark.parametrize(
    ("vanished", "shown", "rows_in", "options", "failed"),
    [
        (2, 20, 18, {}, set()),  # one or two may always go
        (3, 20, 17, {}, {"vanished_rate"}),
        (5, 100, 95, {}, set()),
        (6, 100, 94, {}, {"vanished_rate"}),
        (290, 580, 290, {}, {"vanished_rate"}),
        (290, 580, 290, {"allow_vanished": True}, set()),
        (300, 300, 0, {}, {"empty_input"}),
        (300, 300, 0, {"allow_vanished": True}, {"empty_input"}),
        (300, 300, 0, {"allow_empty": True}, set()),
        (2, 2, 0, {}, {"empty_input"}),
        (2, 2, 2, {}, {"vanished_rate"}),
        (0, 0, 0, {}, set()),
    ],
)
def test_products_that_vanish(vanished, shown, rows_in, options, failed):
    counts = {"rows_in": rows_in, "unchanged": rows_in, "vanished": vanished}
    found = failed_checks(statistics(), config=options, shown=shown, **counts)
    assert found == failed


@pytest.mark.parametrize(
    ("found", "counts", "failed"),
    [
        (statistics(ok=540, degraded=60, color=500), {}, set()),
        (statistics(ok=530, degraded=70, color=500), {}, {"degraded_jump"}),
        (statistics(ok=20, degraded=40, color=50), {}, {"degraded_jump"}),
        (statistics(degraded=30, color=20), {}, set()),  # a catalogue of 30: too few
        (statistics(degraded=50, color=40), {"rows_in": 600, "unchanged": 550}, set()),
        (statistics(ok=600, color=230), {}, {"values_drop"}),
        (statistics(ok=60, color=0), {}, {"values_drop"}),
        (statistics(ok=3, color=0), {}, {"values_drop"}),
    ],
)
def test_a_fall_against_the_last_night_of_a_small_catalogue(found, counts, failed):
    last = {"rows_in": 600, "attribute_rates": {"color": 0.8}, "degraded_rate": 0.01}
    config = {"min_rows": 10_000}
    assert failed_checks(found, last, config=config, **counts) == failed


def test_a_first_night_without_a_single_value_is_refused():
    assert failed_checks(statistics(ok=10)) == {"values_drop"}
    assert verdicts(statistics(ok=3))["values_drop"] == NOT_JUDGED


def test_an_unreadable_file_is_refused():
    assert failed_checks(statistics(ok=9, color=9), unreadable_files=1) == {"unreadable_files"}


def test_too_little_to_judge_is_a_verdict_of_its_own():
    found = verdicts(statistics(ok=5, color=4), {"rows_in": 5, "attribute_rates": {}})
    names = {name for name, verdict in found.items() if verdict == NOT_JUDGED}
    assert {"quarantine_rate", "null_rate", "row_change", "degraded_jump"} <= names
    assert found["rows_unaccounted"] == found["vanished_rate"] == PASSED


@pytest.mark.parametrize("confidence", [math.nan, -0.1, 1.01, math.inf, None])
def test_a_confidence_that_is_none_is_refused(confidence):
    row = {"status": "ok", "values": [{"attribute": "color", "confidence": confidence}]}
    found = RunStatistics()
    found.add(pa.Table.from_pylist([row], schema=EXTRACTIONS_SCHEMA))
    assert failed_checks(found) == {"bad_confidences"}


def test_a_rare_attribute_is_not_judged():
    assert "drift:rare" not in verdicts(statistics(ok=1000, color=800, size=100), LAST)


def test_statistics_of_table_rows():
    def row(status, reason, attributes):
        values = [{"attribute": name, "confidence": 0.5} for name in attributes]
        return {"status": status, "reason": reason, "values": values}

    rows = [
        row("ok", None, ["color", "color", "size"]),
        row("degraded", "no_picture", []),
        row("quarantined", "empty_text", []),
    ]
    found = RunStatistics()
    found.add(pa.Table.from_pylist(rows, schema=EXTRACTIONS_SCHEMA))
    found.add(EXTRACTIONS_SCHEMA.empty_table())
    assert (found.rows, found.empty, found.quarantined) == (3, 1, 1)
    assert found.status == {"ok": 1, "degraded": 1, "quarantined": 1}
    assert found.reason == {"no_picture": 1, "empty_text": 1}
    assert found.attribute_rates() == {"color": 1.0, "size": 0.5}


def test_counts_of_several_ranges_add_up():
    whole, first, second = (
        RunStatistics(3 * n, n, {"ok": n}, {"empty_text": n}, {"color": n}, n) for n in (3, 1, 2)
    )
    first.merge(second)
    assert first == whole
