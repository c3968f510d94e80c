"""The gate's arithmetic."""

import pyarrow as pa
import pytest

from pipelines.lake.tables import EXTRACTIONS_SCHEMA
from pipelines.nightly.gate import GateConfig, RunStatistics, run_gate
from pipelines.nightly.plan.plan import PlanCounts


def statistics(ok=0, quarantined=0, degraded=0, empty=0, color=0, size=0) -> RunStatistics:
    status = {"ok": ok, "quarantined": quarantined, "degraded": degraded}
    rows = ok + quarantined + degraded
    return RunStatistics(rows, empty, status, {}, {"color": color, "size": size})


def verdicts(found: RunStatistics, last=None, *, config=None, **counts) -> dict[str, bool]:
    plan = PlanCounts(**({"rows_in": found.rows, "extract": found.rows} | counts))
    checks = run_gate(plan, found, last, GateConfig(**(config or {})))
    return {check.name: check.is_passed for check in checks}


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
    result = verdicts(found, config={"max_degraded_rate": 0.5}, **counts)
    assert {name for name, is_passed in result.items() if not is_passed} == failed


@pytest.mark.parametrize(
    ("found", "counts", "failed"),
    [
        (statistics(ok=1000, color=800, size=100), {}, set()),
        (statistics(ok=1000, color=300, size=100), {}, {"drift:color"}),
        (statistics(ok=1000, color=1300, size=100), {}, {"drift:color"}),
        (statistics(ok=1000, color=800, size=20), {}, {"drift:size"}),
        (statistics(ok=50, color=0), {"rows_in": 1000, "unchanged": 950}, set()),
        (statistics(ok=400, color=320, size=40), {}, {"row_change"}),
        (
            statistics(ok=2000, color=1600, size=200),
            {},
            {"row_change"},
        ),
    ],
)
def test_against_the_last_night(found, counts, failed):
    result = verdicts(found, LAST, **counts)
    assert {name for name, is_passed in result.items() if not is_passed} == failed


def test_a_rare_attribute_is_not_judged():
    assert "drift:rare" not in verdicts(statistics(ok=1000, color=800, size=100), LAST)


def test_statistics_of_table_rows():
    def row(status, reason, attributes):
        values = [{"attribute": name} for name in attributes]
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
