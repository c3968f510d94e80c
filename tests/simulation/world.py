"""A world: a simulated store with inputs and one table, a clock, and processes that work on it."""

import concurrent.futures
import datetime
import random
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import deltalake
import fsspec
import polars
from dictionary_model import DictionarySource
from simulation.clock import Clock, SimulatedDatetime, SimulatedThreading, SimulatedTime
from simulation.delta import SimulatedDelta, SimulatedPolars
from simulation.processes import Killed, Process, current
from simulation.store import ROOT, SCHEME, SimulatedFileSystem, real_path

from pipelines.lake.storage import Storage
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyConfig, NightlyRequest

STALE_SECONDS = 2.0
SMALL = {
    "executor": "local",
    "num_buckets": 2,
    "normalization": None,
    "chunks": {"rows": 8, "batch_rows": 4},
    "lock": {"beat_seconds": 1.0, "stale_seconds": STALE_SECONDS},
    "maintenance": {"vacuum_hours": None},
}
# limits of the gate that small catalogues would break every night
OPEN_GATE = {
    "max_quarantine_rate": 1.0,
    "max_null_rate": 1.0,
    "max_row_change": 1e9,
    "max_attribute_drift": 1e9,
    "max_vanished_rate": 1.0,
    "max_degraded_jump": 1.0,
    "max_unreadable_files": 1_000_000,
    "allow_empty": True,
    "allow_vanished": True,
}


def small_config(**changes: Any) -> NightlyConfig:
    """Small sizes and a gate that lets everything through."""
    known = NightlyConfig.model_fields["gate"].annotation.model_fields
    gate = {name: value for name, value in OPEN_GATE.items() if name in known}
    return NightlyConfig(**{**SMALL, "gate": gate, **changes})


@dataclass(slots=True)
class Outcome:
    """How a process ended: exit code as the command's, or None when it was killed."""

    process: Process
    code: int | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


class World:
    """One seed's store, clock and processes. All of it is below `ROOT / name`."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name = name
        self.dice = random.Random(seed)
        self.clock = Clock(self)
        self.processes: list[Process] = []
        self.calls = 0
        self.newest_pid = 100
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @property
    def folder(self) -> Any:
        return ROOT / self.name

    def place(self, *parts: str) -> Storage:
        return Storage.of(f"{SCHEME}://{self.name}").join(*parts)

    @property
    def output(self) -> Storage:
        return self.place("out")

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self) -> "Saved":
        """This moment, to come back to."""
        target = ROOT / f"saved-{self.name}-{self.clock.now:.6f}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder, target)
        return Saved(self.name, self.clock.now, self.newest_pid)

    def process(self, name: str, **changes: Any) -> Process:
        self.newest_pid += 1
        process = Process(self, name, pid=self.newest_pid, **changes)
        self.processes.append(process)
        return process

    def run(self, process: Process, work: Callable[[], dict[str, Any]]) -> Outcome:
        """`work` as the process, to its end."""
        outcome = Outcome(process)
        with process.as_current():
            self.attempt(outcome, work)
        return outcome

    def attempt(self, outcome: Outcome, work: Callable[[], dict[str, Any]]) -> None:
        """Fill in how `work` ends; the process is gone then."""
        try:
            outcome.summary = work()
            outcome.code = 0
        except Killed as error:
            outcome.error = error
        except ValueError as error:
            outcome.code, outcome.error = 2, error
        except Exception as error:  # noqa: BLE001 - judged by whoever reads the outcome
            outcome.code, outcome.error = 1, error
        finally:
            outcome.process.is_dead = True
            self.calls += len(outcome.process.calls)

    def night(
        self,
        process: Process | None = None,
        *,
        config: NightlyConfig | None = None,
        model: str = "1",
        **request: Any,
    ) -> Outcome:
        """One night over `in/`."""
        process = process or self.process("night")
        return self.run(process, self.night_work(config=config, model=model, **request))

    def night_work(
        self, *, config: NightlyConfig | None = None, model: str = "1", **request: Any
    ) -> Callable[[], dict[str, Any]]:
        """What a night does, for a process that is started otherwise."""

        def work() -> dict[str, Any]:
            source = DictionarySource(version=model)
            job = NightlyJob(source, self.output, config or small_config())
            return job.run(NightlyRequest((self.place("in").uri,), **request))

        return work


@dataclass(frozen=True, slots=True)
class Saved:
    """A moment of a world."""

    name: str
    now: float
    newest_pid: int

    def restore(self, seed: int = 0) -> World:
        """A world of the same name at that moment, without processes."""
        world = World(self.name, seed)
        world.clock.now = self.now
        world.newest_pid = self.newest_pid
        shutil.rmtree(world.folder)
        shutil.copytree(ROOT / f"saved-{self.name}-{self.now:.6f}", world.folder)
        fsspec.filesystem(SCHEME).forget()
        return world


class SimulatedUuid:
    """Stands in for the module `uuid`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(uuid, name)

    def uuid4(self) -> uuid.UUID:
        process = current()
        return (
            uuid.uuid4() if process is None else uuid.UUID(int=process.world.dice.getrandbits(128))
        )


class OneByOne:
    """Stands in for `ThreadPoolExecutor`: everything in the calling thread, in order."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> "OneByOne":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable, *items: Any) -> Iterator[Any]:
        return iter([function(*item) for item in zip(*items, strict=False)])

    def submit(self, function: Callable, *args: Any, **more: Any) -> Any:
        future: concurrent.futures.Future = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **more))
        except Exception as error:  # noqa: BLE001 - raised again by whoever asks for the result
            future.set_exception(error)
        return future

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


_STAND_INS = {
    id(time): SimulatedTime(),
    id(datetime.datetime): SimulatedDatetime,
    id(threading): SimulatedThreading(),
    id(uuid): SimulatedUuid(),
    id(concurrent.futures.ThreadPoolExecutor): OneByOne,
    id(deltalake.DeltaTable): SimulatedDelta,
    id(polars): SimulatedPolars(),
}
_ROOMS = ("pipelines.lake", "pipelines.nightly", "pipelines.analysis")


@contextmanager
def simulated() -> Iterator[None]:
    """While this is open, the nightly rooms see simulated time, storage and processes."""
    fsspec.register_implementation(SCHEME, SimulatedFileSystem, clobber=True)
    changed = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(_ROOMS):
            continue
        for key, value in list(vars(module).items()):
            stand_in = _STAND_INS.get(id(value))
            if stand_in is not None:
                changed.append((module, key, value))
                setattr(module, key, stand_in)
    changed += _make_owners_simulated()
    try:
        yield
    finally:
        for module, key, value in reversed(changed):
            setattr(module, key, value)
        shutil.rmtree(ROOT, ignore_errors=True)


def _make_owners_simulated() -> list[tuple[Any, str, Any]]:
    """Which process owns a lock, and whether it is alive, is the world's knowledge."""
    from pipelines.nightly.table import lock

    class SimulatedOs:
        def __getattr__(self, name: str) -> Any:
            import os

            return getattr(os, name)

        def getpid(self) -> int:
            process = current()
            assert process is not None
            return process.pid

    def machine() -> str:
        process = current()
        assert process is not None
        return process.machine

    def start_of(pid: int) -> str:
        process = current()
        assert process is not None
        found = [p for p in process.world.processes if p.pid == pid and not p.is_dead]
        return f"started-{pid}" if found else ""

    stand_ins = {"os": SimulatedOs(), "_machine": machine, "_start_of": start_of}
    changed = [(lock, name, getattr(lock, name)) for name in stand_ins]
    for name, value in stand_ins.items():
        setattr(lock, name, value)
    return changed


def raw_file(place: Storage) -> Any:
    """The file behind a place, for the test's own eyes and hands."""
    return real_path(place.uri)
