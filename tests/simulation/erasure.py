"""A fault at every storage call of an erasure: with vacuum, nothing of the product is left.

The table that is erased from has superseded files, a duplicate of the product in quarantine, and a
run that was killed after it had staged the product's new text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulation.every_call import CONFIG, Trial, first_files, put, second_files
from simulation.processes import Call, Fault, Process
from simulation.reading import places_of, read_entries, read_rows
from simulation.world import SMALL, Outcome, Saved, World, raw_file, small_config

from pipelines.nightly.table.erase import erase
from pipelines.nightly.table.lock import LockConfig

IDS = ("p0000", "p0003")
TEXTS = ("text0000", "text0003", "text0103")
_KEPT = small_config(maintenance={"vacuum_hours": None})


@dataclass(slots=True)
class Erasure:
    """The moment before it, and the rows and entries that it must leave."""

    saved: Saved
    expected: tuple[Any, Any]
    calls: list[Call]

    def trials(self) -> Iterator[Trial]:
        """Every fault at every call."""
        for number, call in enumerate(self.calls):
            for fault in call.faults:
                yield Trial(2, number, call, fault)

    def problem(self, trial: Trial) -> str:
        """What is left of the products after the fault and a rerun; "" when nothing is."""
        world = self.saved.restore()
        first = _erase(world, world.process("struck", faults={trial.number: trial.fault}))
        if first.code != 0:
            first = _erase(world, world.process("again"))
        if first.code != 0:
            return f"the rerun fails: {first.error!r}"
        if (read_rows(world), read_entries(world)) != self.expected:
            return "other products differ"
        hits = places_of(world, [*IDS, *TEXTS])
        return f"still there: {hits[:3]}" if hits else ""


def erasure() -> Erasure:
    """The erasure undisturbed."""
    world = World("erasure", seed=1)
    put(world, first_files())
    assert world.night(config=CONFIG).code == 0
    put(world, second_files())
    before = world.save()
    kinds = [call.kind for call in world.night(config=_KEPT).process.calls]
    world = before.restore()
    cut = world.process("cut short", faults={kinds.index("delta commit"): Fault.KILL_BEFORE})
    world.night(cut, config=_KEPT)
    staged = list(raw_file(world.output).rglob("staging/*"))
    assert staged, "the run that was cut short has staged nothing"
    saved = world.save()
    found = _erase(world, world.process("undisturbed"))
    assert found.code == 0, found.error
    return Erasure(saved, (read_rows(world), read_entries(world)), found.process.calls)


def _erase(world: World, process: Process) -> Outcome:
    config = LockConfig(**SMALL["lock"])
    return world.run(process, lambda: erase(world.output, IDS, is_vacuumed=True, config=config))
