"""One run from its plan to its publication; `job.py` decides which run that is.

Every step may be repeated after a crash: it either finds its result stored or makes it again.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import polars as pl

from pipelines.cluster.tasks import Item, Result, WorkerDiedError
from pipelines.errors import RunFailedError
from pipelines.lake.delta.change_feed import FeedUnclearError
from pipelines.lake.inputs import InputFile, listing_fingerprint
from pipelines.lake.snapshot import Snapshot
from pipelines.lake.source import InputChangedError
from pipelines.nightly.crash import crash_point
from pipelines.nightly.gate import RunStatistics
from pipelines.nightly.night import Night
from pipelines.nightly.plan.chunks import WorkList
from pipelines.nightly.plan.feed import Feed, check_feed_rows
from pipelines.nightly.plan.keys import KEYS
from pipelines.nightly.plan.plan import Plan, load_newest_plan
from pipelines.nightly.plan.planner import SaveOptions
from pipelines.nightly.plan.quarantine import published_entries
from pipelines.nightly.plan.scan import ScanTask
from pipelines.nightly.runs import RunFolder
from pipelines.nightly.table.publish import (
    Publisher,
    RangeTask,
    Rewritten,
    range_statistics,
    rewrite_range,
)
from pipelines.nightly.work.decode import DecodeSettings
from pipelines.nightly.work.extracted import RowStamp
from pipelines.nightly.work.open_work import OpenWork, WorkTotals
from pipelines.nightly.work.stages import Stages
from pipelines.nightly.work.staging import MergeTask, Staging, bucket_ranges, merge_parts

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """The steps of one run that is open."""

    night: Night
    folder: RunFolder
    publisher: Publisher
    totals: WorkTotals = field(default_factory=WorkTotals)

    def extract_all(self) -> tuple[Plan, RunStatistics]:
        """Plan and work until every planned row is staged; plan again when inputs change."""
        for _ in range(self.night.config.attempts.max_replans + 1):
            try:
                plan = self.plan()
            except InputChangedError:
                continue
            try:
                self._extract(plan)
            except InputChangedError:
                plan.drop()  # the same listing must not bring the same plan back
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
        """Return the stored plan if the listing is still the one it is for, else a new one."""
        night = self.night
        point = night.feed_point()  # before the listing, which then holds at least that much
        files = night.list_files()
        stored = load_newest_plan(self.folder.place)
        if stored is not None and stored.is_for(files):
            return stored
        snapshot = night.snapshot()
        staging = self._staging()
        last = -1 if stored is None else stored.generation
        generation = max(last, staging.last_generation) + 1
        options = SaveOptions(
            staged=partial(self._staged_keys, staging),
            limit=night.request.limit,
            listing=listing_fingerprint(files),
            feed=night.feed_record(point),
        )
        feed = night.fetch_feed(point, snapshot)
        plan = self._plan_by_feed(feed, snapshot, options, generation)
        if plan is None:
            plan = self._save_plan(files, snapshot, options, generation)
        counts = plan.counts
        _log.info(
            "%d rows in %d files: %d to extract, %d unchanged, %d without a usable key",
            *(counts.rows_in, counts.files, counts.extract - counts.staged, counts.unchanged),
            counts.rows_in - counts.extract - counts.unchanged - counts.deferred,
        )
        return plan

    def _plan_by_feed(
        self, feed: Feed | None, snapshot: Snapshot, options: SaveOptions, generation: int
    ) -> Plan | None:
        """Return a plan that reads changed rows only; None: everything has to be compared."""
        if feed is None:
            return None
        try:
            files = [] if feed.file is None else [feed.file]
            return self._save_plan(files, snapshot, options, generation, feed=feed)
        except FeedUnclearError as error:
            _log.info("the change feed is not used: %s", error)
            return None

    def _save_plan(
        self,
        files: Sequence[InputFile],
        snapshot: Snapshot,
        options: SaveOptions,
        generation: int,
        *,
        feed: Feed | None = None,
    ) -> Plan:
        night = self.night
        scanned = night.scan(files, snapshot.num_buckets)
        if feed is not None:
            check_feed_rows(scanned.files)
        with night.timed("plan"), night.builder(scanned, snapshot, feed) as builder:
            return builder.save(self.folder.place, generation=generation, options=options)

    def statistics(self, plan: Plan) -> RunStatistics:
        """Return counts over the staged rows that the plan accepts."""
        statistics = RunStatistics()
        with self.night.timed("count"):
            tasks = self._range_tasks(plan, self.night.snapshot())
            for found in self._map(range_statistics, tasks):
                statistics.merge(found)
        return statistics

    def publish(self, plan: Plan) -> list[Rewritten]:
        """Rewrite touched buckets, commit once; nothing to do when an earlier attempt did."""
        rewritten: list[Rewritten] = []
        buckets = plan.touched()
        with self.night.timed("publish"):
            if not self.publisher.has_published() and buckets:
                snapshot = self.night.snapshot()
                rewritten = self._rewrite(plan, snapshot)
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

    def _extract(self, plan: Plan) -> None:
        night = self.night
        work = OpenWork(self._stages(plan), self._staging(), night.config.attempts, self.totals)
        self.totals.started = self.totals.started or time.time()
        try:
            with night.timed("extract"):
                night.executor.run(work)
        finally:
            work.close()
        work.check_finished()

    def _stages(self, plan: Plan) -> Stages:
        night = self.night
        settings = night.config.row_settings(night.facts, night.request.options)
        data = [
            ScanTask(night.runs, planned.file, settings, plan.num_buckets).data()
            for planned in plan.files
        ]
        image = night.facts.image
        pictures = night.config.pictures.build(
            night.request.inputs,
            night.request.options,
            max_bytes=None if image is None else image.max_bytes,
        )
        return Stages(
            work=WorkList.of(plan, data),
            decode=DecodeSettings(settings, night.facts, night.config.chunks, pictures),
            model=night.model,
            stamp=RowStamp(
                night.facts.model_id, self.folder.run_id, plan.num_buckets, night.facts.vectors
            ),
            staging=self._staging().place,
            generation=plan.generation,
            normalizer=night.config.build_normalizer(),
        )

    def _staging(self) -> Staging:
        return Staging.open(
            self.folder.place,
            self.night.facts.vectors,
            log_seconds=self.night.config.attempts.receipt_seconds,
        )

    def _staged_keys(self, staging: Staging, bucket: int) -> pl.DataFrame | None:
        return staging.keys(bucket, model_id=self.night.facts.model_id)

    def _range_tasks(self, plan: Plan, snapshot: Snapshot) -> list[RangeTask]:
        """Return the touched buckets, by range; what was staged for them stands in few files."""
        ranges = bucket_ranges(plan.num_buckets, plan.counts.extract)
        staged = self._staging().merged(ranges, self._merge)
        tasks = []
        touched = plan.touched()
        for low, high in ranges:
            files = tuple(snapshot.bucket(bucket) for bucket in touched if low <= bucket < high)
            if files:
                tasks.append(RangeTask((low, high), files, self.folder.run_id, plan, staged))
        return tasks

    def _merge(self, tasks: Sequence[MergeTask]) -> Iterator[str]:
        for path in self._map(merge_parts, tasks):
            crash_point("during_merge")
            yield path

    def _rewrite(self, plan: Plan, snapshot: Snapshot) -> list[Rewritten]:
        rewritten = []
        for found in self._map(rewrite_range, self._range_tasks(plan, snapshot)):
            rewritten += found
            crash_point("during_rewrite")
        return sorted(rewritten, key=lambda item: item.bucket)

    def _map(self, function: Callable[[Item], Result], tasks: Sequence[Item]) -> Iterator[Result]:
        for _, found in self.night.executor.map(function, tasks, is_heavy=False):
            if isinstance(found, WorkerDiedError):
                raise RunFailedError(f"staged rows could not be worked on: {found}")
            yield found


def _check_whole(plan: Plan, rewritten: Sequence[Rewritten]) -> None:
    """Refuse to commit fewer rows than were planned, whatever a listing has left out."""
    found = sum(item.rows_changed for item in rewritten)
    if found != plan.counts.extract:
        raise RunFailedError(
            f"found {found} of {plan.counts.extract} extracted rows in the rewritten buckets, "
            "expected all; nothing was published: run again"
        )
