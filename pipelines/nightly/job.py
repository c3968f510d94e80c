"""The nightly job: which run to open or finish, and what to say about it at the end."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.checks import FAILED, Check
from pipelines.command.secrets import redact
from pipelines.errors import RunFailedError
from pipelines.lake.documents import read_json, write_json
from pipelines.lake.kinds import TABLES, check_apart, check_kind, claim
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, RUNS
from pipelines.nightly.crash import crash_point
from pipelines.nightly.gate import RunStatistics, run_gate
from pipelines.nightly.monitoring import call_webhook, push_metrics
from pipelines.nightly.night import Night
from pipelines.nightly.plan.feed import FEED
from pipelines.nightly.plan.plan import Plan, load_newest_plan
from pipelines.nightly.plan.planner import estimate
from pipelines.nightly.plan.scan import ScanTask
from pipelines.nightly.report import prometheus_text, write_reports
from pipelines.nightly.run import Run
from pipelines.nightly.runs import (
    LAST,
    RUN,
    RunFolder,
    abandon,
    close_run,
    find_open_run,
    open_run,
    published,
    sweep,
)
from pipelines.nightly.settings import NightlyConfig, NightlyRequest
from pipelines.nightly.summary import (
    check_numbers,
    for_next_night,
    plan_numbers,
    row_numbers,
    work_numbers,
    write_numbers,
)
from pipelines.nightly.table.erase import PENDING
from pipelines.nightly.table.lock import FencedError, TableLock, lock_table
from pipelines.nightly.table.maintenance import drop_stale_keys, drop_temporaries, maintain
from pipelines.nightly.table.publish import Publisher, Rewritten
from pipelines.nightly.work.model import ModelSource

_log = logging.getLogger(__name__)
MODELS = "_models"


@dataclass(frozen=True, slots=True)
class NightlyJob:
    """Extracts a catalogue with one model into the tables below `output`."""

    model: ModelSource
    output: Storage
    config: NightlyConfig

    def run(self, request: NightlyRequest) -> dict[str, Any]:
        """Do what the request asks, or finish it if an earlier attempt was cut short."""
        night = self._night(request)
        if request.run_id is not None:
            done = published(night.runs, request.run_id, night.identity())
            if done is not None:
                return {**done, "state": "already published"}
        night.list_files()  # a wrong path is the caller's mistake: say so before taking the lock
        self._check_output(request)
        claim(self.output, TABLES, option="--output")
        lock = lock_table(self.output, request.run_id or "unnamed", self.config.lock)
        try:
            crash_point("after_lock")
            return _Session(night, lock).run()
        finally:
            lock.release()

    def plan_only(self, request: NightlyRequest) -> dict[str, Any]:
        """Return what `run` would do and would cost; nothing is changed but the key cache."""
        self._check_output(request)
        night = self._night(request)
        snapshot = night.snapshot()
        scanned = night.scan(night.list_files(), snapshot.num_buckets)
        with night.timed("plan"), night.builder(scanned, snapshot) as builder:
            plan = builder.estimate(request.limit)
        last = read_json(night.runs.join(LAST))
        return {
            "state": "planned",
            **asdict(plan.counts),
            **estimate(plan, last, self.config.estimate),
            "phase_seconds": _rounded(night.seconds),
        }

    def _check_output(self, request: NightlyRequest) -> None:
        """Check that the tables are apart from the inputs, in a folder of their own."""
        for uri in request.inputs:
            place = Storage.of(uri, request.options)
            check_apart(place, self.output, read="--input", put="--output")
        check_kind(self.output, TABLES, option="--output")

    def _night(self, request: NightlyRequest) -> Night:
        facts = self.model.facts(self.output.join(RUNS, MODELS))
        executor = self.config.build_executor()
        return Night(self.config, request, self.model, facts, self.output, executor)


class _Session:
    """Work of one owner of the table."""

    def __init__(self, night: Night, lock: TableLock) -> None:
        self._night = night
        self._lock = lock
        self._started = time.monotonic()
        self._last = read_json(night.runs.join(LAST))

    def run(self) -> dict[str, Any]:
        """Finish a run that had committed already, then the run that was asked for."""
        night = self._night
        if self._lock.took_over:
            self._publisher("fence").fence()
        recovered = self._finish_committed()
        if self._last is not None:  # what a crash after closing left behind
            RunFolder(night.runs.join(self._last["run_id"])).drop_work()
        if recovered is not None and recovered["run_id"] == night.request.run_id:
            published(night.runs, recovered["run_id"], night.identity())
            return recovered
        self._lock.check()
        folder = open_run(night.runs, night.request.run_id, night.identity())
        crash_point("after_run_opened")
        run = Run(night, folder, self._publisher(folder.run_id))
        if run.publisher.has_published():
            abandon(night.runs, folder)
            raise ValueError(f"run {folder.run_id} was published before; choose another --run-id")
        self._sweep()
        try:
            return self._run(run)
        except Exception as error:  # reported, whatever it is, and raised again
            self._report_failure(run, error)
            raise

    def _run(self, run: Run) -> dict[str, Any]:
        plan, statistics = run.extract_all()
        crash_point("before_gate")
        checks = self._judge(plan, statistics)
        failed = [check for check in checks if check.verdict == FAILED]
        if failed:
            summary = self._summary(run, plan, statistics, checks)
            raise RunFailedError(_gate_message(failed), summary=summary)
        crash_point("after_gate")
        self._lock.check()
        rewritten = run.publish(plan)
        summary = self._summary(run, plan, statistics, checks, rewritten=rewritten)
        self._close(run, plan, summary)
        return self._clean_up(run, plan, summary)

    def _judge(self, plan: Plan, statistics: RunStatistics) -> list[Check]:
        counts = plan.counts if plan.is_complete else replace(plan.counts, vanished=0)
        shown = 0
        if counts.vanished or not counts.rows_in:
            shown = self._night.snapshot().count_shown()
        gate = self._night.config.gate
        return run_gate(counts, statistics, self._last, gate, shown=shown)

    def _close(self, run: Run, plan: Plan, summary: dict[str, Any]) -> None:
        night = self._night
        summary["state"] = "published"
        self._lock.check()
        self._report(run, summary)
        self._last = for_next_night(summary, self._last, night.config.gate)
        self._last["feed"] = night.next_feed(plan)
        write_json(night.runs.join(LAST), self._last)
        crash_point("before_closed")
        close_run(night.runs, run.folder, summary)
        crash_point("after_published")

    def _clean_up(self, run: Run, plan: Plan, summary: dict[str, Any]) -> dict[str, Any]:
        night = self._night
        with night.timed("clean up"):
            settings = night.config.row_settings(night.facts, night.request.options)
            tasks = [ScanTask(night.runs, p.file, settings, plan.num_buckets) for p in plan.files]
            if not plan.is_by_feed:  # else the keys of the whole input wait for the next full look
                drop_stale_keys(night.runs, (task.name() for task in tasks))
                night.merge_keys(tasks, plan.num_buckets)
            night.runs.join(FEED).delete()
            night.runs.join(PENDING).delete()
            run.folder.drop_work()
            drop_temporaries(night.output)
            summary |= maintain(night.output, night.config.maintenance)
        return summary

    def _sweep(self) -> None:
        """Close runs of an owner who slept through a takeover; drop those that are too old."""
        kept = (self._last or {}).get("run_id", "")
        days = self._night.config.maintenance.keep_runs_days
        swept = sweep(self._night.runs, keep_days=days, kept=(kept,))
        if swept:
            _log.info("closed or dropped %d runs: %s", len(swept), ", ".join(swept[:10]))

    def _finish_committed(self) -> dict[str, Any] | None:
        """Close a run whose extractions are visible already, as what it was asked to be."""
        folder = find_open_run(self._night.runs)
        if folder is None:
            return None
        publisher = self._publisher(folder.run_id)
        plan = load_newest_plan(folder.place)
        if plan is None or not publisher.has_published():
            return None
        run = Run(self._night, folder, publisher)
        run.publish_quarantine(plan)
        summary = self._summary(run, plan, run.statistics(plan), [])
        summary["model_id"] = (folder.read(RUN) or {"request": summary})["request"]["model_id"]
        _log.info("run %s had committed; it is closed", folder.run_id)
        self._close(run, plan, summary)
        folder.drop_work()
        return summary

    def _publisher(self, run_id: str) -> Publisher:
        snapshot = self._night.snapshot()
        return Publisher(
            self._night.output, self._lock.epoch, run_id, snapshot.num_buckets, snapshot.vectors
        )

    def _report_failure(self, run: Run, error: Exception) -> None:
        """Tell everybody; the error itself rises again."""
        summary = {
            "run_id": run.folder.run_id,
            "phase_seconds": _rounded(self._night.seconds),
            **(error.summary if isinstance(error, RunFailedError) else {}),
            "state": "failed",
            "error": redact(str(error) or type(error).__name__),
        }
        if isinstance(error, RunFailedError):
            error.summary.update(summary)
        if self._night.config.webhook:
            call_webhook(self._night.config.webhook, summary)
        try:
            self._lock.check()
            self._report(run, summary)
        except FencedError as fenced:  # the run is another owner's by now, its reports too
            raise fenced from error
        except OSError as second:
            _log.warning("the report of the failed run could not be written: %s", second)

    def _report(self, run: Run, summary: Mapping[str, Any]) -> None:
        metrics = prometheus_text(summary, finished_at=time.time())
        if self._night.config.push_gateway:
            push_metrics(self._night.config.push_gateway, self._night.output.name, metrics)
        write_reports(run.folder, summary, metrics=metrics)

    def _summary(
        self,
        run: Run,
        plan: Plan,
        statistics: RunStatistics,
        checks: Sequence[Check],
        *,
        rewritten: Sequence[Rewritten] = (),
    ) -> dict[str, Any]:
        night = self._night
        seconds = night.seconds.get("extract", 0.0)
        return {
            "run_id": run.folder.run_id,
            "state": "ready",
            "model_id": night.facts.model_id,
            **plan_numbers(plan),
            **row_numbers(statistics),
            **work_numbers(run.totals, seconds=seconds, num_cores=night.executor.num_cores()),
            **write_numbers(rewritten),
            "table_version": run.publisher.versions.get(EXTRACTIONS),
            "seconds": round(time.monotonic() - self._started, 3),
            "phase_seconds": _rounded(night.seconds),
            "gate": check_numbers(checks),
        }


def _gate_message(failed: Sequence[Check]) -> str:
    found = "; ".join(
        f"{check.name} is {check.found:.3f}, limit {check.limit:.3f}"
        + (f" ({check.note})" if check.note else "")
        for check in failed
    )
    return (
        f"the gate refused to publish: {found}. Nothing was published; look into it, or raise the "
        "limit (--set gate....) and run again: what was extracted is kept"
    )


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(value, 3) for phase, value in seconds.items()}
