"""Who may write a table: numbered epochs, each created once by a conditional put.

`_lock/epoch-N.json` names the owner, `.beat` changes while it lives, `.released` says that it left.
Losing the lock (a pause longer than `stale_seconds`) is harmless: the next owner has a higher epoch
and the table refuses commits of lower ones. No clocks are compared: who wants the table watches the
beat and counts its silence by its own clock. The table knows its last epoch too, so that deleting
`_runs` starts no epoch again.
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.command.secrets import redact
from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, QUARANTINE, RUNS, open_table

APP_ID, LOCK = "ulsdram-nightly", "_lock"

_log = logging.getLogger(__name__)


class TableBusyError(RunFailedError):
    """Another run owns the table."""


class FencedError(RunFailedError):
    """This run lost the table to another one while it was asleep."""


class LockConfig(BaseModel):
    """How soon a silent owner counts as dead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beat_seconds: float = Field(10.0, gt=0, description="Seconds between signs of life.")
    stale_seconds: float = Field(
        120.0, gt=0, description="An owner on another machine silent for so long is overtaken."
    )

    @model_validator(mode="after")
    def _beats_fit(self) -> "LockConfig":
        if self.stale_seconds < 2 * self.beat_seconds:
            raise ValueError(
                f"stale_seconds is {self.stale_seconds}, expected at least twice beat_seconds "
                f"({self.beat_seconds})"
            )
        return self


@dataclass(frozen=True, slots=True)
class Owner:
    """One process, told apart from every other on any machine."""

    token: str
    machine: str
    pid: int
    started: str
    run_id: str

    @staticmethod
    def this_process(run_id: str) -> "Owner":
        """Return the process that calls."""
        pid = os.getpid()
        return Owner(uuid.uuid4().hex, _machine(), pid, _start_of(pid), run_id)

    def to_json(self) -> bytes:
        """Return it as stored in the epoch file."""
        names = ("token", "machine", "pid", "started", "run_id")
        return json.dumps({name: getattr(self, name) for name in names}).encode()

    def is_dead_here(self) -> bool:
        """Return whether this machine knows that the process has ended."""
        return self.machine == _machine() and self.started != _start_of(self.pid)


class TableLock:
    """Ownership of one table; beats in a thread until `release`."""

    def __init__(
        self, folder: Storage, epoch: int, owner: Owner, *, took_over: bool, config: LockConfig
    ) -> None:
        self.epoch = epoch
        self.took_over = took_over
        self._folder = folder
        self._owner = owner.to_json()
        self._config = config
        self._num_beats = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, daemon=True)

    @staticmethod
    def acquire(folder: Storage, owner: Owner, config: LockConfig, *, used: int = 0) -> "TableLock":
        """Own the next epoch, or raise TableBusyError; `used` is the highest one in the table."""
        newest = newest_epoch(folder)
        took_over = used > newest  # the folder was deleted: nobody knows whether its owner lives
        if newest and not folder.join(_name(newest, "released")).exists():
            _refuse_if_alive(folder, newest, config)
            took_over = True
        epoch = max(newest, used) + 1
        place = folder.join(_name(epoch, "json"))
        # read back: some stores take every put, whatever its condition
        if not place.write_if_absent(owner.to_json()) or place.read_bytes() != owner.to_json():
            raise TableBusyError(f"another run has just taken {folder.uri}; wait for it to end")
        lock = TableLock(folder, epoch, owner, took_over=took_over, config=config)
        lock._beat()
        lock._thread.start()
        lock._drop_older()
        if took_over:
            _log.warning("epoch %d takes over from an owner that died or went silent", epoch)
        return lock

    def check(self) -> None:
        """Raise FencedError when somebody else owns the table by now."""
        newest = newest_epoch(self._folder)
        if newest > self.epoch:
            raise FencedError(
                f"this run owned epoch {self.epoch} but epoch {newest} has taken over; "
                "nothing was published by this process"
            )
        if _read(self._folder.join(_name(self.epoch, "json"))) != self._owner:
            raise FencedError(
                f"epoch {self.epoch} of {self._folder.uri} is another run's or was deleted; "
                "run again"
            )

    def release(self) -> None:
        """Stop beating and let the next run in at once."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._config.beat_seconds)
        try:
            self._folder.join(_name(self.epoch, "released")).write_bytes(b"{}")
        except OSError as error:
            # what was done stays done: the next owner only has to wait until this one is silent
            _log.warning("the lock could not be released: %s", redact(str(error)))

    def _beat_until_stopped(self) -> None:
        while not self._stopped.wait(self._config.beat_seconds):
            try:
                self._beat()
            except OSError as error:
                _log.warning("the lock's sign of life could not be written: %s", error)

    def _beat(self) -> None:
        self._num_beats += 1
        beat = f"{self._num_beats} {time.time()}".encode()
        self._folder.join(_name(self.epoch, "beat")).write_bytes(beat)

    def _drop_older(self) -> None:
        for name in self._folder.names():
            if _epoch_of(name) < self.epoch:
                self._folder.join(name).delete()


def newest_epoch(folder: Storage) -> int:
    """Return the highest epoch that anybody owned; 0 when nobody ever did."""
    return max((_epoch_of(name) for name in folder.names() if name.endswith(".json")), default=0)


def _refuse_if_alive(folder: Storage, epoch: int, config: LockConfig) -> None:
    owner = Owner(**json.loads(folder.join(_name(epoch, "json")).read_bytes()))
    if owner.is_dead_here():
        return
    beat, started = folder.join(_name(epoch, "beat")), time.monotonic()
    first = _read(beat)
    while time.monotonic() - started < config.stale_seconds:
        time.sleep(min(config.beat_seconds, 2.0) / 4)
        if folder.join(_name(epoch, "released")).exists():
            return
        if _read(beat) != first or newest_epoch(folder) != epoch:
            raise TableBusyError(
                f"run {owner.run_id} (process {owner.pid}) owns {folder.uri} and gave a sign of "
                f"life just now; wait for it, or until it is silent for "
                f"{config.stale_seconds:.0f} s"
            )


def table_epoch(output: Storage) -> int:
    """Return the highest epoch that has written the tables; 0 when none did."""
    tables = (open_table(output, name) for name in (EXTRACTIONS, QUARANTINE))
    return max((delta.transaction_version(APP_ID) or 0 for delta in tables if delta), default=0)


def lock_table(output: Storage, run_id: str, config: LockConfig) -> TableLock:
    """Return the lock of the tables below `output`, owned by this process."""
    folder = output.join(RUNS, LOCK)
    return TableLock.acquire(folder, Owner.this_process(run_id), config, used=table_epoch(output))


def _read(place: Storage) -> bytes:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return b""


def _name(epoch: int, suffix: str) -> str:
    return f"epoch-{epoch:08d}.{suffix}"


def _epoch_of(name: str) -> int:
    head = name.partition(".")[0].removeprefix("epoch-")
    return int(head) if head.isdigit() else 0


def _machine() -> str:
    """Return host, boot and process namespace: where a process number means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = namespace = ""
    return f"{platform.node()}/{boot}/{namespace}"


def _start_of(pid: int) -> str:
    """Return when the process started; "" when there is none. A zombie has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
