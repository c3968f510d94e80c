"""What all steps of a night share: model, table, executor, clocks, and the scan of the input."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.cluster.tasks import WorkerDiedError
from pipelines.lake.delta.change_feed import FeedPoint, feed_point
from pipelines.lake.documents import read_json
from pipelines.lake.history import commits_of
from pipelines.lake.inputs import InputFile, list_inputs
from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage
from pipelines.lake.tables import RUNS
from pipelines.lake.uris import without_secrets
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.changes import ChangeRules
from pipelines.nightly.plan.feed import Feed, FeedTask, fetch_feed, usable_since
from pipelines.nightly.plan.keys import (
    KeyTable,
    known_summaries,
    list_packs,
    merge_packs,
    merge_tasks,
    scan_files,
    scan_groups,
    write_pack,
)
from pipelines.nightly.plan.plan import Plan
from pipelines.nightly.plan.planner import PlanBuilder, check_columns
from pipelines.nightly.plan.rows import RowSettings
from pipelines.nightly.plan.scan import (
    FileKeys,
    FileSummary,
    PlannedFile,
    RowMap,
    ScanTask,
    no_records,
)
from pipelines.nightly.runs import LAST
from pipelines.nightly.settings import NightlyConfig, NightlyRequest
from pipelines.nightly.work.executor import Executor
from pipelines.nightly.work.model import ModelFacts, ModelSource
from ulsdram_core.reasons import Reason

_log = logging.getLogger(__name__)
_DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class Scanned:
    """All input files with their summaries; `new_uris` were opened by this very scan."""

    files: list[PlannedFile]
    tasks: list[ScanTask]
    new_uris: frozenset[str]


@dataclass(slots=True)
class Night:
    """Everything that the steps of one run share."""

    config: NightlyConfig
    request: NightlyRequest
    model: ModelSource
    facts: ModelFacts
    output: Storage
    executor: Executor
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def runs(self) -> Storage:
        """The folder of all runs."""
        return self.output.join(RUNS)

    def identity(self) -> dict[str, Any]:
        """Return what a run of this night must have been asked for."""
        return self.request.identity(self.facts, self._row_settings())

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of a phase to `seconds`."""
        started = time.monotonic()
        _log.info("%s ...", phase)
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started

    def list_files(self) -> list[InputFile]:
        """Return the input files now."""
        return list_inputs(self.request.inputs, self.request.options)

    def feed_point(self) -> FeedPoint | None:
        """Return where the change feed of the input stands; None when there is none to be used."""
        inputs = self.request.inputs
        return feed_point(Storage.of(inputs[0], self.request.options)) if len(inputs) == 1 else None

    def fetch_feed(self, now: FeedPoint | None, snapshot: Snapshot) -> Feed | None:
        """Return what changed since the last night; None: everything has to be compared."""
        request, settings = self.request, self._row_settings()
        if now is None or request.is_full or request.is_replay or request.limit is not None:
            return None
        record = (read_json(self.runs.join(LAST)) or {}).get("feed")
        since = usable_since(record, now, settings, _newest_run(snapshot))
        if since is None:
            return None
        with self.timed("feed"):
            tasks = [FeedTask(self.runs, since, now, settings)]
            ((_, feed),) = self.executor.map(fetch_feed, tasks, is_heavy=True)
        return None if isinstance(feed, WorkerDiedError) else feed

    def feed_record(self, point: FeedPoint | None) -> dict[str, Any] | None:
        """Return where the input stands, and what is read of it."""
        if point is None:
            return None
        known = {"uri": without_secrets(point.uri), "signature": self._row_settings().signature()}
        return asdict(point) | known

    def next_feed(self, plan: Plan) -> dict[str, Any] | None:
        """Return what the next night has to know of this one to use the feed."""
        point, run = plan.next_feed(), _newest_run(self.snapshot())
        return None if point is None or run is None else {**point, "table_run": run}

    def _row_settings(self) -> RowSettings:
        return self.config.row_settings(self.facts, self.request.options)

    def snapshot(self) -> Snapshot:
        """Return the table now."""
        return Snapshot.newest(
            self.output, num_buckets=self.config.num_buckets, vectors=self.facts.vectors
        )

    def scan(self, files: Sequence[InputFile], num_buckets: int) -> Scanned:
        """Return summaries of all files; only files whose content is new are opened."""
        settings = self._row_settings()
        tasks = [ScanTask(self.runs, file, settings, num_buckets) for file in files]
        with self.timed("scan"):
            summaries = known_summaries(list_packs(self.runs))
            new = [task for task in tasks if task.name() not in summaries]
            summaries |= self._scan_new(new)
        planned = [PlannedFile(task.file, summaries[task.name()]) for task in tasks]
        check_columns(planned, settings)
        crash_point("after_scan")
        new_uris = frozenset(task.file.uri for task in new)
        return Scanned(planned, tasks, new_uris)

    def _scan_new(self, tasks: Sequence[ScanTask]) -> dict[str, FileSummary]:
        """Scan files together; those that were together when their worker died, one by one."""
        found: dict[str, FileSummary] = {}
        num_cores = self.executor.num_cores() if tasks else 1
        waiting = scan_groups(tasks, num_cores=num_cores)
        while waiting:
            groups, waiting = waiting, []
            for group, result in self.executor.map(scan_files, groups, is_heavy=True):
                crash_point("during_scan")
                if not isinstance(result, WorkerDiedError):
                    found.update(zip((task.name() for task in group), result, strict=True))
                elif len(group) > 1:
                    waiting += [[task] for task in group]
                else:
                    found[group[0].name()] = self._unreadable(group[0], str(result))
        return found

    def _unreadable(self, task: ScanTask, detail: str) -> FileSummary:
        """Call it unreadable: a file that kills whoever reads it."""
        summary = FileSummary(problem=Reason.UNREADABLE_FILE.value, detail=detail)
        write_pack(self.runs, [FileKeys(task.name(), summary, no_records())], task.num_buckets)
        return summary

    def merge_keys(self, tasks: Sequence[ScanTask], num_buckets: int) -> None:
        """Keep the key table in few packs; only for the owner of the lock."""
        names = frozenset(task.name() for task in tasks)
        merges = merge_tasks(self.runs, list_packs(self.runs), names, num_buckets=num_buckets)
        for _, result in self.executor.map(merge_packs, merges, is_heavy=False):
            if isinstance(result, WorkerDiedError):
                _log.warning("packs of the key table could not be merged: %s", result)

    def _recheck_days(self, files: Sequence[PlannedFile]) -> int | None:
        """Return days only where pictures are named by address."""
        name = self.config.columns.image_uri
        is_named = any(name in planned.summary.columns for planned in files)
        return self.config.recheck_pictures_days if is_named and self.facts.image else None

    @contextmanager
    def builder(
        self, scanned: Scanned, snapshot: Snapshot, feed: Feed | None = None
    ) -> Iterator[PlanBuilder]:
        """Compare what was scanned with the table."""
        rules = ChangeRules(
            recheck_days=self._recheck_days(scanned.files),
            today=int(time.time() // _DAY_SECONDS),
            model_id=self.facts.model_id,
            is_full=self.request.is_full,
            is_replay=self.request.is_replay,
            retry_reasons=self.config.retry_reasons,
        )
        rows = RowMap(scanned.files)
        found = {
            task.name(): (scanned.files[i].summary, rows.file_start(i))
            for i, task in enumerate(scanned.tasks)
        }
        new = [p.summary for p in scanned.files if p.file.uri in scanned.new_uris]
        with KeyTable(list_packs(self.runs), found) as table:
            builder = PlanBuilder(scanned.files, table, snapshot, rules, feed)
            builder.counts.files_scanned = len(new)
            builder.counts.bytes_scanned = sum(summary.bytes_read for summary in new)
            yield builder


def _newest_run(snapshot: Snapshot) -> str | None:
    """Return the run that changed the table last."""
    commits = commits_of(snapshot.delta) if snapshot.delta is not None else []
    return next((commit.run_id for commit in reversed(commits) if commit.run_id), None)
