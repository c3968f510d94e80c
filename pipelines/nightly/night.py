"""What all steps of a night share: model, table, executor, clocks, and the scan of the input."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines.cluster.tasks import WorkerDiedError
from pipelines.lake.inputs import InputFile, list_inputs
from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage
from pipelines.lake.tables import RUNS
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.changes import ChangeRules
from pipelines.nightly.plan.planner import PlanBuilder, check_columns
from pipelines.nightly.plan.scan import FileSummary, PlannedFile, ScanTask, read_summary, scan_file
from pipelines.nightly.settings import NightlyConfig, NightlyRequest
from pipelines.nightly.work.executor import Executor
from pipelines.nightly.work.model import ModelFacts, ModelSource
from ulsdram_core.reasons import Reason

_log = logging.getLogger(__name__)


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
        """The input files now."""
        return list_inputs(self.request.inputs, self.request.options)

    def snapshot(self) -> Snapshot:
        """The table now."""
        return Snapshot.newest(
            self.output, num_buckets=self.config.num_buckets, vectors=self.facts.vectors
        )

    def scan(self, files: Sequence[InputFile], num_buckets: int) -> Scanned:
        """Summaries of all files; only files whose content is new are opened."""
        settings = self.config.row_settings(self.facts, self.request.options)
        tasks = [ScanTask(self.runs, file, settings, num_buckets) for file in files]
        with self.timed("scan"):
            summaries = self._known_summaries(tasks)
            new = [task for task, summary in zip(tasks, summaries, strict=True) if not summary]
            found = {}
            for task, summary in self.executor.map(scan_file, new, is_heavy=True):
                crash_point("during_scan")
                found[task.file.uri] = _summary_or_unreadable(summary)
        planned = [
            PlannedFile(task.file, summary or found[task.file.uri])
            for task, summary in zip(tasks, summaries, strict=True)
        ]
        check_columns(planned, settings)
        crash_point("after_scan")
        return Scanned(planned, tasks, new_uris=frozenset(found))

    def builder(self, scanned: Scanned, snapshot: Snapshot) -> PlanBuilder:
        """Compares what was scanned with the table."""
        rules = ChangeRules(
            model_id=self.facts.model_id,
            is_full=self.request.is_full,
            is_replay=self.request.is_replay,
            retry_reasons=self.config.retry_reasons,
        )
        builder = PlanBuilder(scanned.files, scanned.tasks, snapshot, rules)
        new = [p.summary for p in scanned.files if p.file.uri in scanned.new_uris]
        builder.counts.files_scanned = len(new)
        builder.counts.bytes_scanned = sum(summary.bytes_read for summary in new)
        return builder

    def _known_summaries(self, tasks: Sequence[ScanTask]) -> list[FileSummary | None]:
        summaries = []
        for task in tasks:
            summary = read_summary(task)
            # what could not be read is tried again every night
            summaries.append(None if summary is None or summary.is_spoiled else summary)
        return summaries


def _summary_or_unreadable(found: FileSummary | WorkerDiedError) -> FileSummary:
    """A file that kills whoever reads it is unreadable."""
    if isinstance(found, WorkerDiedError):
        return FileSummary(problem=Reason.UNREADABLE_FILE.value, detail=str(found))
    return found
