"""Housekeeping after a publish: compaction, vacuum, and what earlier runs left behind."""

import logging
import math
from collections.abc import Iterable
from pathlib import Path

from deltalake import DeltaTable
from pydantic import BaseModel, ConfigDict, Field

from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, QUARANTINE, open_table
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.keys import drop_unused_packs
from pipelines.nightly.plan.scan import CSV_COPIES

_log = logging.getLogger(__name__)


class MaintenanceConfig(BaseModel):
    """What to do with files that no reader needs any more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_runs_days: float | None = Field(
        90.0,
        ge=1,
        description="Days for which reports of runs are kept. Null: for ever.",
    )
    compact: bool = Field(
        False, description="Merge the files of a bucket and shorten the log after publishing."
    )
    vacuum_hours: float | None = Field(
        168.0,
        ge=0,
        description="Delete superseded files older than this after publishing; must "
        "exceed the longest read of an old version. Null: never.",
    )


def maintain(output: Storage, config: MaintenanceConfig) -> dict[str, int]:
    """Compact and vacuum both tables as configured; counts of files."""
    counts = {"files_compacted": 0, "files_vacuumed": 0}
    crash_point("before_compaction")
    for name in (EXTRACTIONS, QUARANTINE):
        delta = open_table(output, name)
        if delta is None:
            continue
        if config.compact:
            metrics = delta.optimize.compact()
            counts["files_compacted"] += int(metrics["numFilesRemoved"])
            delta.create_checkpoint()
    crash_point("after_compaction")
    if config.vacuum_hours is not None:
        counts["files_vacuumed"] = vacuum(output, hours=config.vacuum_hours)
    crash_point("after_vacuum")
    return counts


def vacuum(output: Storage, *, hours: float) -> int:
    """Delete superseded files older than `hours`, and strays of crashed runs; files deleted."""
    deleted = 0
    for name in (EXTRACTIONS, QUARANTINE):
        delta = open_table(output, name)
        if delta is not None:
            deleted += len(_vacuum(delta, hours))
    return deleted


def drop_stale_keys(runs: Storage, current: Iterable[str]) -> None:
    """Remove keys and copies of inputs that are no longer listed in this form."""
    kept = set(current)
    for name in runs.join(CSV_COPIES).names():
        if name.partition(".")[0] not in kept:
            runs.join(CSV_COPIES, name).delete()
    crash_point("during_cleanup")
    drop_unused_packs(runs, kept)


def drop_temporaries(output: Storage) -> None:
    """Remove what writes that were cut short left on this machine's disks."""
    if output.is_local:
        for path in Path(output.path).rglob(".*.tmp"):
            path.unlink(missing_ok=True)


def _vacuum(delta: DeltaTable, hours: float) -> list[str]:
    return delta.vacuum(
        retention_hours=math.ceil(hours),
        dry_run=False,
        enforce_retention_duration=False,
        full=True,  # strays of crashed runs are in no log entry
    )
