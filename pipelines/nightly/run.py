"""One run from its plan to its publication; `job.py` decides which run that is.

Every step may be repeated after a crash: it either finds its result stored or makes it again.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import polars as pl

from pipelines.cluster.tasks import WorkerDiedError
from pipelines.errors import RunFailedError
from pipelines.lake.snapshot import Snapshot
from pipelines.nightly.crash import crash_point
from pipelines.nightly.gate import RunStatistics
from pipelines.nightly.night import Night
from pipelines.nightly.plan.chunks import Chunk, cut_wave
from pipelines.nightly.plan.plan import Plan, load_newest_plan
from pipelines.nightly.plan.planner import SaveOptions
from pipelines.nightly.plan.quarantine import published_entries
from pipelines.nightly.plan.scan import KEYS, ScanTask
from pipelines.nightly.runs import RunFolder
from pipelines.nightly.table.publish import (
    Publisher,
    RewriteTask,
    Rewritten,
    rewrite_bucket,
    staged_rows,
)
from pipelines.nightly.work.decode import DecodeSettings, InputChangedError
from pipelines.nightly.work.stages import Stages, settle_row
from pipelines.nightly.work.staging import RowStamp, Staging
from pipelines.nightly.work.waves import AttemptLog, WaveRun, WaveTotals

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """The steps of one run that is open."""

    night: Night
    folder: RunFolder
    publisher: Publisher
    totals: WaveTotals = field(default_factory=WaveTotals)

    def extract_all(self) -> tuple[Plan, RunStatistics]:
        """Plan and work until every planned row is staged; plan again when inputs change."""
        for _ in range(self.night.config.waves.max_replans + 1):
            plan = self.plan()
            try:
                self._run_waves(plan)
            except InputChangedError:
                continue
            statistics = self.statistics(plan)
            if statistics.rows == plan.counts.extract:
                return plan, statistics
            _log.warning("planned %d rows, staged %d", plan.counts.extract, statistics.rows)
            # the same listing must not bring the same plan back, nor the same keys
            plan.drop()
            self.night.runs.join(KEYS).delete()
        raise RunFailedError(
            "the input files keep changing while they are read; run again when the export is over"
        )

    def plan(self) -> Plan:
        """The stored plan if the listing is still the one it was made for, else a new one."""
        night = self.night
        files = night.list_files()
        stored = load_newest_plan(self.folder.place)
        if stored is not None and [planned.file for planned in stored.files] == files:
            return stored
        snapshot = night.snapshot()
        scanned = night.scan(files, snapshot.num_buckets)
        with night.timed("plan"):
            builder = night.builder(scanned, snapshot)
            staging = Staging.open(self.folder.place, self.night.facts.vectors)
            used = [number for number, _ in staging.waves]
            used += [] if stored is None else [stored.generation]
            options = SaveOptions(
                staged=partial(self._staged_keys, staging),
                wave_rows=night.config.waves.rows,
                limit=night.request.limit,
            )
            generation = max(used, default=-1) + 1
            plan = builder.save(self.folder.place, generation=generation, options=options)
        counts = plan.counts
        _log.info(
            "%d rows in %d files: %d to extract, %d unchanged, %d without a usable key",
            *(counts.rows_in, counts.files, counts.extract - counts.staged, counts.unchanged),
            counts.rows_in - counts.extract - counts.unchanged - counts.deferred,
        )
        return plan

    def statistics(self, plan: Plan) -> RunStatistics:
        """Counts over the staged rows that the plan accepts."""
        staging = Staging.open(self.folder.place, self.night.facts.vectors)
        statistics = RunStatistics()
        for bucket in plan.touched():
            statistics.add(staged_rows(plan, staging, bucket))
        return statistics

    def publish(self, plan: Plan) -> list[Rewritten]:
        """Rewrite touched buckets, commit once; nothing to do when an earlier attempt did."""
        rewritten: list[Rewritten] = []
        buckets = plan.touched()
        with self.night.timed("publish"):
            if not self.publisher.has_published() and buckets:
                snapshot = self.night.snapshot()
                rewritten = self._rewrite(plan, buckets, snapshot)
                _check_whole(plan, rewritten)
                crash_point("before_commit")
                self.publisher.commit_extractions(snapshot, rewritten)
            crash_point("after_commit")
            self.publish_quarantine(plan)
        return rewritten

    def publish_quarantine(self, plan: Plan) -> None:
        """Replace the quarantine table by the plan's entries."""
        entries = published_entries(plan.quarantine(), self.night.snapshot(), self.folder.run_id)
        self.publisher.commit_quarantine(entries)
        crash_point("after_quarantine_commit")

    def _run_waves(self, plan: Plan) -> None:
        night, place = self.night, self.folder.place
        attempts = place.join(f"attempts-{plan.generation:04d}")
        stages = self._stages(plan)
        waves = WaveRun(
            plan,
            Staging.open(place, night.facts.vectors),
            night.config.waves,
            cut=partial(self._cut, plan),
            settle=partial(settle_row, stages=stages),
            attempts=AttemptLog(None if night.executor.survives_poison else attempts),
        )
        try:
            with night.timed("extract"):
                night.executor.run(waves, stages)
                waves.check_finished()
        finally:
            self.totals.add(waves.totals)

    def _cut(self, plan: Plan, wave: int) -> Iterator[Chunk]:
        night = self.night
        settings = night.config.row_settings(night.facts, night.request.options)
        data = [
            ScanTask(night.runs, planned.file, settings, plan.num_buckets).data()
            for planned in plan.files
        ]
        return cut_wave(wave, plan.wave(wave), plan.rows, data=data, config=night.config.chunks)

    def _stages(self, plan: Plan) -> Stages:
        night = self.night
        settings = night.config.row_settings(night.facts, night.request.options)
        image = night.facts.image
        pictures = night.config.pictures.build(
            night.request.inputs,
            night.request.options,
            max_bytes=None if image is None else image.max_bytes,
        )
        return Stages(
            decode=DecodeSettings(settings, night.facts, night.config.chunks, pictures),
            model=night.model,
            stamp=RowStamp(
                night.facts.model_id, self.folder.run_id, plan.num_buckets, night.facts.vectors
            ),
            normalizer=night.config.build_normalizer(),
        )

    def _staged_keys(self, staging: Staging, bucket: int) -> pl.DataFrame | None:
        return staging.keys(bucket, model_id=self.night.facts.model_id)

    def _rewrite(self, plan: Plan, buckets: Sequence[int], snapshot: Snapshot) -> list[Rewritten]:
        staging = Staging.open(self.folder.place, self.night.facts.vectors)
        tasks = [
            RewriteTask(snapshot.bucket(bucket), self.folder.run_id, plan=plan, staging=staging)
            for bucket in buckets
        ]
        rewritten = []
        for _, result in self.night.executor.map(rewrite_bucket, tasks, is_heavy=False):
            if isinstance(result, WorkerDiedError):
                raise RunFailedError(f"a bucket could not be rewritten: {result}")
            rewritten.append(result)
            crash_point("during_rewrite")
        return rewritten


def _check_whole(plan: Plan, rewritten: Sequence[Rewritten]) -> None:
    """Refuse to commit fewer rows than were planned, whatever a listing has left out."""
    found = sum(item.rows_changed for item in rewritten)
    if found != plan.counts.extract:
        raise RunFailedError(
            f"found {found} of {plan.counts.extract} extracted rows in the rewritten buckets, "
            "expected all; nothing was published: run again"
        )
