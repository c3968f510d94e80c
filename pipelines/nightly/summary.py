"""The run in numbers: what the report shows, the job prints and the next night compares with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.checks import Check
from pipelines.nightly.gate import GateConfig, RunStatistics
from pipelines.nightly.plan.plan import Plan
from pipelines.nightly.table.publish import Rewritten
from pipelines.nightly.work.open_work import WorkTotals
from ulsdram_core.schema import Status


def plan_numbers(plan: Plan) -> dict[str, Any]:
    """Return what came in and what it needed."""
    counts = plan.counts
    return {
        "rows_in": counts.rows_in,
        "rows_unchanged": counts.unchanged,
        "rows_deferred": counts.deferred,
        "rows_vanished": counts.vanished if plan.is_complete else 0,
        "rows_quarantine_table": (
            counts.keyless + counts.duplicates + counts.unreadable + counts.bad_lines
        ),
        "files": counts.files,
        "files_scanned": counts.files_scanned,
        "files_unreadable": counts.unreadable_files,
        "row_groups_unreadable": counts.unreadable_row_groups,
        "bytes_scanned": counts.bytes_scanned,
        "is_listing_complete": plan.is_complete,
        "input_fingerprint": plan.listing,
        "num_plans": plan.generation + 1,
    }


def row_numbers(statistics: RunStatistics) -> dict[str, Any]:
    """Return what was extracted, earlier attempts of the run included."""
    return {
        "rows_extracted": statistics.rows,
        "by_status": dict(sorted(statistics.status.items())),
        "by_reason": dict(sorted(statistics.reason.items())),
        "rows_usable": statistics.usable,
        "rows_without_value": statistics.empty,
        "attribute_rates": {k: round(v, 6) for k, v in statistics.attribute_rates().items()},
    }


def work_numbers(totals: WorkTotals, *, seconds: float, num_cores: int) -> dict[str, Any]:
    """Return what this attempt worked.

    `efficiency` = core seconds that decoding and model took by those available, between the first
    batch and the last; the time until the first one is `start_seconds`.
    """
    steady_seconds, steady_cores = totals.steady()
    available = num_cores * steady_seconds
    account = totals.account
    return {
        "rows_worked": totals.rows,
        "products_per_second": round(totals.rows / seconds, 3) if seconds else 0.0,
        "decode_core_seconds": round(account.decode_seconds, 3),
        "model_core_seconds": round(account.model_seconds, 3),
        "efficiency": round(steady_cores / available, 4) if available else 0.0,
        "start_seconds": round(totals.start_seconds, 3),
        "bytes_read": account.bytes_read,
        "broken_pictures": account.broken_pictures,
        "poison_rows": account.poison_rows,
        "worker_failures": totals.worker_failures,
    }


def write_numbers(rewritten: Sequence[Rewritten]) -> dict[str, Any]:
    """Return what publishing wrote; `write_amplification` = rows written by rows that changed."""
    written = sum(file.size for item in rewritten for file in item.new)
    rows = sum(sum(item.new_rows) for item in rewritten)
    changed = sum(item.rows_changed + item.rows_vanished for item in rewritten)
    return {
        "buckets_rewritten": len(rewritten),
        "bytes_written": written,
        "rows_written": rows,
        "write_amplification": round(rows / changed, 3) if changed else 0.0,
    }


def check_numbers(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return the gate's checks as plain values."""
    return [asdict(check) for check in checks]


def for_next_night(
    summary: Mapping[str, Any], last: Mapping[str, Any] | None, config: GateConfig
) -> dict[str, Any]:
    """Return what the next gate and the next estimate need; rates only of runs with enough rows."""
    always = {"run_id": summary["run_id"], "rows_in": summary["rows_in"]}
    usable = summary.get("rows_usable", 0)
    is_most = 2 * usable >= summary["rows_in"]
    if last is not None and not is_most and summary["rows_extracted"] < config.min_rows:
        return {**last, **always}
    degraded = summary["by_status"].get(Status.DEGRADED.value, 0) / max(1, usable)
    return {
        **always,
        "attribute_rates": summary["attribute_rates"],
        "products_per_second": summary["products_per_second"],
        "empty_rate": summary["rows_without_value"] / max(1, usable),
        "degraded_rate": degraded if is_most or last is None else last.get("degraded_rate"),
    }
