"""Simulated processes: every storage call of one passes `Process.call`, where a fault may strike.

A process is a thread that runs alone: it goes on until it ends, dies or freezes at a storage call.
A dead one does nothing any more, not even in its `finally` clauses.
"""

import errno
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from fsspec.exceptions import FSTimeoutError

if TYPE_CHECKING:
    from simulation.world import World

T = TypeVar("T")
SLOW_SECONDS = 10.0
_here = threading.local()


class Fault(StrEnum):
    """What can happen at a storage call."""

    REFUSED = "refused"  # fails before it took effect
    LOST_ANSWER = "lost answer"  # fails after it took effect
    TIMEOUT = "timeout"  # without an errno, as fsspec raises it
    FORBIDDEN = "403"  # a bare PermissionError, as s3fs raises it
    MISSING = "404"  # of a file that is there
    STALE = "stale listing"
    TORN = "torn"  # a deletion of many files (on a local disk: a written file) stops halfway
    SLOW = "slow"
    CONFLICT = "conflict"  # a commit that took effect and is then refused by itself
    KILL_BEFORE = "killed before"
    KILL_AFTER = "killed after"


class Killed(BaseException):
    """The end of a process; no handler of the product sees it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One storage call: what, where, and the faults that can strike there."""

    kind: str
    path: str
    faults: tuple[Fault, ...]


_ALL = (Fault.REFUSED, Fault.TIMEOUT, Fault.FORBIDDEN, Fault.SLOW, Fault.KILL_BEFORE)
_CHANGES = (*_ALL, Fault.LOST_ANSWER, Fault.KILL_AFTER)
FAULTS: Mapping[str, tuple[Fault, ...]] = {
    "exists": (*_ALL, Fault.MISSING),
    "info": (*_ALL, Fault.MISSING),
    "list": (*_ALL, Fault.STALE),
    "open": (*_ALL, Fault.MISSING),
    "get": (*_ALL, Fault.MISSING),
    "put": _CHANGES,
    "create": _CHANGES,
    "delete": (*_CHANGES, Fault.TORN),
    "delta open": (*_ALL, Fault.MISSING),
    "delta read": _ALL,
    "delta create": _CHANGES,
    "delta commit": (*_CHANGES, Fault.CONFLICT),
    "delta vacuum": _CHANGES,
    "delta compact": _CHANGES,
    "delta checkpoint": _CHANGES,
}


@dataclass(slots=True)
class Process:
    """One run of a command. `faults` strike at call numbers; `freeze_at` is one as well."""

    world: "World"
    name: str
    pid: int
    machine: str = "one"
    faults: dict[int, Fault] = field(default_factory=dict)
    chance: float = 0.0  # of a random fault at each call
    freeze_at: int | None = None
    skew: float = 0.0  # seconds by which its clock is ahead
    calls: list[Call] = field(default_factory=list)
    struck: list[tuple[int, Call, Fault]] = field(default_factory=list)
    is_dead: bool = False
    is_frozen: bool = False
    beats: list[Any] = field(default_factory=list)
    _woken: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def call(
        self,
        kind: str,
        path: str,
        action: Callable[[], T],
        *,
        half: Callable[[], object] | None = None,
        stale: Callable[[], T] | None = None,
    ) -> T:
        """Do `action` or what the fault plan makes of it."""
        if self.is_dead:
            raise Killed
        number = len(self.calls)
        call = Call(kind, path, FAULTS[kind])
        self.calls.append(call)
        self.world.clock.tick()
        if number == self.freeze_at:
            self._freeze()
        fault = self.faults.get(number) or self._chance(call)
        if fault is None or fault not in call.faults:
            return action()
        self.struck.append((number, call, fault))
        if fault is Fault.STALE:
            return action() if stale is None else stale()
        if fault is Fault.TORN and half is not None:
            half()
        return self._strike(fault, call, action)

    def _strike(self, fault: Fault, call: Call, action: Callable[[], T]) -> T:
        if fault is Fault.KILL_BEFORE:
            self.die()
        if fault is Fault.SLOW:
            self.world.clock.sleep(SLOW_SECONDS)
            return action()
        if fault in (Fault.LOST_ANSWER, Fault.KILL_AFTER, Fault.CONFLICT):
            action()
        if fault is Fault.KILL_AFTER:
            self.die()
        raise _error(fault, call)

    def _chance(self, call: Call) -> Fault | None:
        dice = self.world.dice
        return dice.choice(call.faults) if self.chance and dice.random() < self.chance else None

    def die(self) -> None:
        """End here and now."""
        self.is_dead = True
        raise Killed

    def _freeze(self) -> None:
        self.is_frozen = True
        self._stopped.set()
        self._woken.wait()
        self.is_frozen = False
        if self.is_dead:
            raise Killed

    def run_until_frozen(self, work: Callable[[], None]) -> None:
        """Begin in a thread of its own; returns when it is frozen or has ended."""

        def run() -> None:
            with self.as_current():
                try:
                    work()
                finally:
                    self._stopped.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._stopped.wait()

    def wake(self) -> None:
        """Go on where it froze, until it ends."""
        self._woken.set()
        self._thread.join()

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """Whatever runs in this thread is done by this process."""
        before = current()
        _here.process = self
        try:
            yield
        finally:
            _here.process = before

    _thread: Any = None


def current() -> Process | None:
    """The process that runs in this thread; None: the test itself."""
    return getattr(_here, "process", None)


def storage_call(kind: str, path: str, action: Callable[[], T], **more: Any) -> T:
    """A call of the running process; the test's own calls never fail."""
    process = current()
    return action() if process is None else process.call(kind, path, action, **more)


def _error(fault: Fault, call: Call) -> Exception:
    if call.kind.startswith("delta"):
        return _delta_error(fault, call)
    match fault:
        case Fault.TIMEOUT:
            return FSTimeoutError()
        case Fault.FORBIDDEN:
            return PermissionError("Access Denied")
        case Fault.MISSING:
            return FileNotFoundError(errno.ENOENT, "No such file or directory", call.path)
        case Fault.REFUSED:
            return OSError(errno.EBUSY, "Reduce your request rate")
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def _delta_error(fault: Fault, call: Call) -> Exception:
    """As deltalake raises them: no errno, all but a missing table are plain OSErrors."""
    from deltalake.exceptions import CommitFailedError, TableNotFoundError

    if fault is Fault.MISSING:
        return TableNotFoundError("no log files")
    if fault is Fault.CONFLICT:
        return CommitFailedError("Transaction failed: a concurrent transaction conflicted")
    return OSError(f"Generic S3 error: {fault} at {call.path}")
