"""Simulated time: it goes on only when somebody sleeps or calls the storage.

The lock's sign of life is a thread that waits on an event; here such threads run when their time
has come, in the thread of whoever let the time pass.
"""

import datetime as real_datetime
import time as real_time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.processes import Killed, current

if TYPE_CHECKING:
    from simulation.processes import Process
    from simulation.world import World

_TICK = 0.001
# Before the machine's own time: deltalake takes that one to judge the age of deleted files.
START = 1_600_000_000.0


class Clock:
    """The time of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.now = START

    def tick(self) -> None:
        """The time that a storage call takes."""
        self.now += _TICK

    def sleep(self, seconds: float) -> None:
        """Let time pass, and all beat that are alive and due."""
        until = self.now + seconds
        while (due := self._next_due(until)) is not None:
            self.now = max(self.now, due.due)
            due.run()
        self.now = max(self.now, until)

    def _next_due(self, until: float) -> "Beat | None":
        alive = [p for p in self._world.processes if not p.is_dead and not p.is_frozen]
        due = [beat for p in alive for beat in p.beats if beat.due <= until and beat.is_idle]
        return min(due, key=lambda beat: beat.due, default=None)


class SimulatedTime:
    """Stands in for the module `time`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)

    def time(self) -> float:
        process = current()
        if process is None:
            return real_time.time()
        process.world.clock.now += 1e-6
        return process.world.clock.now + process.skew

    def monotonic(self) -> float:
        return self.time()

    def perf_counter(self) -> float:
        return self.time()

    def sleep(self, seconds: float) -> None:
        process = current()
        assert process is not None, "only simulated processes sleep"
        process.world.clock.sleep(seconds)


class _IsDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, real_datetime.datetime)


class SimulatedDatetime(real_datetime.datetime, metaclass=_IsDatetime):
    """Stands in for the class `datetime`."""

    @classmethod
    def now(cls, tz: Any = None) -> real_datetime.datetime:  # type: ignore[override]
        return real_datetime.datetime.fromtimestamp(SimulatedTime().time(), tz)


class _EnoughError(Exception):
    """A beating thread waits for the second time: its turn is over."""


class Event:
    """Stands in for `threading.Event` where a thread waits between signs of life."""

    def __init__(self) -> None:
        self._is_set = False
        self.beat: Beat | None = None

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        process = current()
        assert process is not None
        beat = next((b for b in process.beats if not b.is_idle), None)
        if self._is_set or beat is None:
            return self._is_set
        if beat.has_waited:
            beat.due = process.world.clock.now + (timeout or 0.0)
            raise _EnoughError
        beat.has_waited = True
        return False


class Beat:
    """Stands in for `threading.Thread`: runs `target` from one wait to the next."""

    def __init__(
        self, *, target: Callable[..., None], args: tuple = (), daemon: bool = True, name: str = ""
    ) -> None:
        process = current()
        assert process is not None
        assert daemon
        self.name = name
        self.due = process.world.clock.now
        self.is_idle = True
        self.has_waited = True
        self._process: Process = process
        self._work = lambda: target(*args)

    def start(self) -> None:
        self._process.beats.append(self)
        self.run(is_first=True)

    def is_alive(self) -> bool:
        return self in self._process.beats

    def join(self, timeout: float | None = None) -> None:
        del timeout
        if self.is_alive():
            self._process.beats.remove(self)

    def run(self, *, is_first: bool = False) -> None:
        """One round: from the end of a wait to the begin of the next."""
        self.is_idle, self.has_waited = False, is_first
        try:
            with self._process.as_current():
                self._work()
            self.join()  # the target has returned
        except (_EnoughError, Killed):
            pass
        finally:
            self.is_idle = True


class SimulatedThreading:
    """Stands in for the module `threading`."""

    Event, Thread = Event, Beat

    def __getattr__(self, name: str) -> Any:
        import threading

        return getattr(threading, name)
