"""One night in a process of its own that a crash point may kill.

The process is forked from a server that has imported everything and done nothing: a second instead
of the many that imports take.
"""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from dictionary_model import DictionarySource

from pipelines.lake.storage import Storage
from pipelines.nightly.crash import VARIABLE
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyConfig, NightlyRequest

KILLED = -9
SMALL = {
    "executor": "local",
    "num_buckets": 4,
    "normalization": None,
    "chunks": {"rows": 32, "batch_rows": 8},
    "waves": {"rows": 50},
    "gate": {
        "max_quarantine_rate": 1.0,
        "max_null_rate": 1.0,
        "max_row_change": 10.0,
        "max_values_drop": 1.0,
        "max_degraded_jump": 1.0,
        "max_unreadable_files": 10,
        "allow_vanished": True,
    },
    "lock": {"beat_seconds": 0.2, "stale_seconds": 1.0},
}


def small_config(**changes) -> NightlyConfig:
    """Small sizes, so that a hundred rows make several waves."""
    return NightlyConfig(**{**SMALL, **changes})


@dataclass(frozen=True)
class Call:
    """One call of the job."""

    inputs: tuple[str, ...]
    output: Storage
    options: dict = field(default_factory=dict)
    request: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)

    def run(self) -> dict:
        """In this process."""
        job = NightlyJob(DictionarySource(**self.model), self.output, small_config(**self.config))
        return job.run(NightlyRequest(self.inputs, options=self.options, **self.request))

    def run_apart(
        self, *, crash_at: str = "", task: Callable[["Call"], object] | None = None
    ) -> int:
        """In a process of its own, or another task on this table; its exit code."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["run_job"])
        process = context.Process(target=_run, args=(self, crash_at, task or Call.run))
        process.start()
        process.join(timeout=120)
        assert process.exitcode is not None, "the process hangs"
        return process.exitcode


def _run(call: Call, crash_at: str, task: Callable[[Call], object]) -> None:
    os.environ[VARIABLE] = crash_at
    task(call)
