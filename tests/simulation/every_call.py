"""A fault at every storage call of a night, one at a time: the same tables in the end.

Undisturbed nights say what must come out. Then, for each call and each fault that can strike
there, the night runs with the fault and once more without one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulation.catalogue import BROKEN, Files, Item, parquet
from simulation.processes import Call, Fault
from simulation.reading import orphans, read_entries, read_rows
from simulation.world import Outcome, Saved, World, small_config

COUNTS = ("rows_in", "rows_quarantine_table", "files", "files_unreadable", "is_listing_complete")
_RERUNS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """A fault at one call of one night."""

    night: int
    number: int
    call: Call
    fault: Fault

    def __str__(self) -> str:
        path = self.call.path.split("/out/")[-1]
        return f"night {self.night}, call {self.number} ({self.call.kind} {path}): {self.fault}"


@dataclass(slots=True)
class Nights:
    """The moments before the first and the second night, and what comes out of each."""

    saved: list[Saved]
    expected: list[Any]
    calls: list[list[Call]]

    def trials(self) -> Iterator[Trial]:
        """Every fault at every call."""
        for night, calls in enumerate(self.calls):
            for number, call in enumerate(calls):
                for fault in call.faults:
                    yield Trial(night, number, call, fault)

    def problem(self, trial: Trial) -> str:
        """What differs after the fault; "" when nothing does."""
        try:
            return self._problem(trial)
        except AssertionError as error:
            return str(error)

    def _problem(self, trial: Trial) -> str:
        world = self.saved[trial.night].restore()
        process = world.process("struck", faults={trial.number: trial.fault})
        first = world.night(process, config=CONFIG)
        expected = self.expected[trial.night]
        # a stale listing of the input is an older input
        is_older = trial.fault is Fault.STALE and trial.call.path.endswith("/in")
        if first.code == 0 and not is_older and _state(world, first) != expected:
            return f"exit 0, but the tables differ: {_difference(_state(world, first), expected)}"
        for _ in range(_RERUNS):
            last = world.night(config=CONFIG)
            if last.code == 0:
                break
        else:
            return f"no rerun succeeds: {last.error!r} (first: {first.error!r})"
        if _state(world, last) != expected:
            return f"after the rerun: {_difference(_state(world, last), expected)}"
        left = orphans(world)
        return f"left behind: {left[:4]}" if left else ""


CONFIG = small_config(maintenance={"compact": True, "vacuum_hours": 0})


def put(world: World, files: Files) -> None:
    """Make `in/` hold these files and nothing else."""
    place = world.place("in")
    for name in place.names():
        if name not in files:
            place.join(name).delete()
    for name, items in files.items():
        content = BROKEN if items is None else parquet(items)
        file = place.join(name)
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)


def first_files() -> Files:
    """A small catalogue with a duplicate and a row without an id."""
    items = [
        Item(f"p{i:04d}", f"red wool shirt text{i:04d}", i % 3 * 60 or None) for i in range(14)
    ]
    return {"a.parquet": items[:7], "b.parquet": [*items[7:], items[0], Item(None, "blue text9")]}


def second_files() -> Files:
    """Changed, new, vanished, duplicate and keyless rows; a file that was renamed."""
    first = first_files()
    items = [*first["a.parquet"], *first["b.parquet"]]  # type: ignore[misc]
    items[3] = Item("p0003", "blue cotton text0103", 60)
    del items[5]
    return {"a.parquet": items[:6], "c.parquet": [*items[6:], Item("p0099", "blue text0099", -1)]}


def two_nights(name: str = "every") -> Nights:
    """Both nights undisturbed."""
    world = World(name, seed=1)
    saved, expected, calls = [], [], []
    for files in (first_files(), second_files()):
        put(world, files)
        saved.append(world.save())
        found = world.night(config=CONFIG)
        assert found.code == 0, found.error
        calls.append(found.process.calls)
        world.night(config=CONFIG)
        expected.append(_state(world, found))
    return Nights(saved, expected, calls)


def sample(trials: list[Trial], count: int, seed: int) -> list[Trial]:
    """Some of the trials, another set for another seed."""
    return random.Random(seed).sample(trials, min(count, len(trials)))


def _state(world: World, outcome: Outcome) -> dict[str, Any]:
    return {
        "rows": read_rows(world),
        "entries": read_entries(world),
        "counts": {name: outcome.summary.get(name) for name in COUNTS},
    }


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    parts = []
    for name in expected:
        one, other = found[name], expected[name]
        keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
        if keys:
            key = sorted(keys)[0]
            parts.append(f"{len(keys)} {name}, {key}: {one.get(key)} != {other.get(key)}")
    return "; ".join(parts)
