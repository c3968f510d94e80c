"""Random histories of a table, checked after each step against the model in `catalogue.py`.

A step takes a `Pick`, which is dice here and Hypothesis in `test_history.py`. After a disturbed
step the tables hold the state before it or after it; whichever it is is adopted, and the next
undisturbed night must bring exactly what the inputs ask for.
"""

from collections.abc import Callable, Sequence
from typing import Any

from simulation.catalogue import (
    Tables,
    after_limited,
    after_night,
    changed_ids,
    differences,
)
from simulation.every_call import put
from simulation.inputs import Dice, Inputs, Pick, choose
from simulation.processes import FAULTS, Fault, Process
from simulation.reading import as_rows, orphans, places_of, read_entries, read_rows
from simulation.world import SMALL, STALE_SECONDS, Outcome, World, small_config

from pipelines.analysis.export import ExportConfig, export
from pipelines.nightly.rollback import rollback
from pipelines.nightly.table.erase import erase
from pipelines.nightly.table.lock import LockConfig

LOCK = LockConfig(**SMALL["lock"])
KINDS = tuple(sorted({fault for faults in FAULTS.values() for fault in faults}))


class History:
    """One table, its inputs, and what both must hold. `log` says what was done."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.world = World(name, seed)
        self.tables = Tables()
        self.pending: list[Tables] = []  # what cut-off steps since the last clean night may leave
        self.versions: list[tuple[str, Tables]] = []
        self.model = "1"
        self.is_vacuumed = False
        self.nights = 0
        self.log: list[str] = []
        self.inputs = Inputs(self.log)
        put(self.world, self.inputs.files)

    # --- steps ---------------------------------------------------------------------------------

    def change_inputs(self, pick: Pick) -> None:
        """One to three changes of the kinds that exporters make."""
        self.inputs.change(pick)
        put(self.world, self.inputs.files)

    def clean_night(self, pick: Pick) -> None:
        """A night that nothing disturbs."""
        kind = choose(pick, ({}, {"is_full": True}, {"is_replay": True}, {"vacuum": True}))
        config: dict[str, Any] = {"compact": bool(pick.number(2)), "vacuum_hours": None}
        if kind.get("vacuum"):
            config["vacuum_hours"] = 0
        request = {name: value for name, value in kind.items() if name != "vacuum"}
        self.log.append(f"night {kind}")
        outcome = self.world.night(
            config=small_config(maintenance=config), model=self.model, **request
        )
        self._check_night(outcome)
        if config["vacuum_hours"] == 0:
            self.is_vacuumed = True
            left = orphans(self.world)
            assert not left, f"left behind: {left[:5]}"

    def limited_night(self, pick: Pick) -> None:
        """Only some rows; nothing vanishes."""
        limit = 1 + pick.number(4)
        if self.pending:
            return
        changed = changed_ids(self.tables, self.inputs.files, self.model)
        expected = after_limited(self.tables, self.inputs.files, self.model, changed[:limit])
        self.log.append(f"night limit={limit}")
        outcome = self.world.night(model=self.model, limit=limit)
        self._check_done(outcome)
        self._settle([expected], outcome)
        self.nights += 1

    def disturbed_night(self, pick: Pick) -> None:
        """A fault or the end at one call."""
        number, fault = pick.number(200), choose(pick, KINDS)
        self.log.append(f"night with {fault} at {number}")
        process = self.world.process("disturbed", faults={number: fault})
        outcome = self.world.night(process, model=self.model)
        if not process.struck:
            self._check_night(outcome)
            return
        is_stale = fault is Fault.STALE
        self._after_disturbance(outcome, self._target(), is_exact=not is_stale)
        self.nights += 1

    def stormy_night(self, pick: Pick) -> None:
        """Every call may fail."""
        seed, chance = pick.number(10_000), choose(pick, (0.005, 0.02, 0.1))
        self.log.append(f"night with faults at {chance} of its calls, seed {seed}")
        process = self.world.process("stormy", chance=chance)
        self.world.dice.seed(seed)
        outcome = self.world.night(process, model=self.model)
        is_stale = any(fault is Fault.STALE for _, _, fault in process.struck)
        self._after_disturbance(outcome, self._target(), is_exact=not is_stale)
        self.nights += 1

    def frozen_night(self, pick: Pick) -> None:
        """An owner freezes, another one takes over and publishes, the first one wakes up."""
        number, is_silent = pick.number(180), pick.number(4) > 0
        world = self.world
        sleeper = world.process("sleeper", freeze_at=number)
        asleep = Outcome(sleeper)
        work = world.night_work(model=self.model)
        self.log.append(f"night frozen at {number}, {'silent' if is_silent else 'alive'}")
        sleeper.run_until_frozen(lambda: world.attempt(asleep, work))
        if not sleeper.is_frozen:
            self._check_night(asleep)
            return
        try:
            self._while_frozen(pick, is_silent=is_silent)
        finally:
            sleeper.wake()
        self._after_disturbance(asleep, self._target(), is_exact=False)
        self.nights += 1

    def _while_frozen(self, pick: Pick, *, is_silent: bool) -> None:
        # what the sleeper committed before it froze is there
        self._after_disturbance(Outcome(self.world.processes[-1]), self._target(), is_exact=False)
        if is_silent:
            self.world.clock.sleep(2 * STALE_SECONDS)
            if pick.number(2):
                self.change_inputs(pick)
        other = self.world.night(model=self.model)
        if is_silent or other.code == 0:
            self._check_night(other)
        else:
            assert other.code == 1, f"a busy table: {other.error!r}"

    def erase(self, pick: Pick) -> None:
        """Some products go, from the history too when it is vacuumed."""
        known = sorted(self.tables.rows)
        if not known or not self.versions:
            return
        ids = sorted({choose(pick, known) for _ in range(1 + pick.number(2))})
        is_vacuumed, fault = bool(pick.number(2)), self._maybe_fault(pick)
        process = self.world.process("erase", faults=fault)
        self.log.append(f"erase {ids}, vacuum {is_vacuumed}, {fault}")
        outcome = self.world.run(
            process,
            lambda: erase(self.world.output, ids, is_vacuumed=is_vacuumed, config=LOCK),
        )
        left = {name: row for name, row in self.tables.rows.items() if name not in ids}
        entries = {key: name for key, name in self.tables.entries.items() if name not in ids}
        self.versions.clear()
        self._settle_command(outcome, Tables(left, entries), process)
        if outcome.code == 0:
            self.pending.clear()
            self._check_erased(ids, is_vacuumed=is_vacuumed)

    def _check_erased(self, ids: Sequence[str], *, is_vacuumed: bool) -> None:
        if not is_vacuumed:
            return
        self.is_vacuumed = True
        texts = sorted({*ids, *(text for name in ids for text in self.inputs.texts[name])})
        hits = places_of(self.world, texts)
        assert not hits, f"erased but still there: {hits[:5]}"

    def rollback(self, pick: Pick) -> None:
        """Both tables as an earlier run left them."""
        if not self.versions:
            return
        run_id, tables = choose(pick, self.versions)
        fault = self._maybe_fault(pick)
        process = self.world.process("rollback", faults=fault)
        self.log.append(f"rollback to {run_id}, {fault}")
        outcome = self.world.run(process, lambda: rollback(self.world.output, run_id, config=LOCK))
        if outcome.code == 2 and self.is_vacuumed and not process.struck:
            self._settle([self.tables], outcome)
            return
        self._settle_command(outcome, tables, process)
        if outcome.code == 0:
            self.pending.clear()

    def new_model(self, pick: Pick) -> None:
        """The next nights extract with another model."""
        self.model = str(1 + pick.number(3))
        self.log.append(f"model {self.model}")

    def export(self, pick: Pick) -> None:
        """A snapshot holds the products that have not vanished."""
        del pick
        if not self.versions:
            return
        self.log.append("export")
        process = self.world.process("export")
        target = self.world.place("snapshot")
        outcome = self.world.run(process, lambda: export(self.world.output, target, ExportConfig()))
        self._check_done(outcome)
        there = sum(row.status != "vanished" for row in self.tables.rows.values())
        assert outcome.summary["products"] == there, (outcome.summary, there)

    # --- checks --------------------------------------------------------------------------------

    def finish(self) -> None:
        """The last word: an undisturbed night, with a vacuum, and nothing is left behind."""
        self.clean_night(_Fixed((3, 0)))

    def close(self) -> None:
        """Let go of everything."""
        for process in self.world.processes:
            process.is_dead = True
        self.world.close()

    def _target(self) -> Tables:
        return after_night(self.tables, self.inputs.files, self.model)

    def _check_night(self, outcome: Outcome) -> None:
        self._check_done(outcome)
        self._settle([self._target()], outcome)
        rows = sum(len(items) for items in self.inputs.files.values() if items is not None)
        assert outcome.summary["rows_in"] == rows, (outcome.summary["rows_in"], rows)
        if outcome.summary.get("buckets_rewritten"):  # others have no version to go back to
            self.versions.append((outcome.summary["run_id"], self.tables.copy()))
        self.pending.clear()
        self.nights += 1

    def _check_done(self, outcome: Outcome) -> None:
        if outcome.code != 0:
            raise AssertionError(f"undisturbed, but it ended with {outcome.error!r}") from (
                outcome.error
            )

    def _after_disturbance(self, outcome: Outcome, target: Tables, *, is_exact: bool) -> None:
        if outcome.code == 0 and is_exact:
            self._settle([target], outcome)
            return
        self.pending.append(target)
        self._settle([self.tables, *self.pending], outcome)

    def _settle_command(self, outcome: Outcome, target: Tables, process: Process) -> None:
        if not process.struck:
            self._check_done(outcome)
        if outcome.code == 0:
            self._settle([target], outcome)
        else:
            self.pending.append(target)
            self._settle([self.tables, *self.pending], outcome)

    def _settle(self, candidates: Sequence[Tables], outcome: Outcome) -> None:
        """Adopt the one state that the tables have."""
        rows, entries = read_rows(self.world), read_entries(self.world)
        told = f" (exit {outcome.code}, {outcome.error!r})"
        found = [c for c in candidates if as_rows(c) == rows]
        assert found, "rows: " + differences(rows, as_rows(candidates[0])) + told
        same = [c for c in candidates if c.entries == entries]
        assert same, "quarantine: " + differences(entries, candidates[0].entries) + told
        self.tables = Tables(dict(found[0].rows), dict(same[0].entries))

    def _maybe_fault(self, pick: Pick) -> dict[int, Fault]:
        number, fault = pick.number(60), choose(pick, KINDS)
        return {} if pick.number(2) else {number: fault}


class _Fixed:
    """Choices that are made already."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = list(numbers)

    def number(self, end: int) -> int:
        del end
        return self._numbers.pop(0)


Step = Callable[[History, Pick], None]
STEPS: tuple[Step, ...] = (
    History.change_inputs,
    History.change_inputs,
    History.clean_night,
    History.clean_night,
    History.limited_night,
    History.disturbed_night,
    History.disturbed_night,
    History.stormy_night,
    History.frozen_night,
    History.frozen_night,
    History.erase,
    History.rollback,
    History.new_model,
    History.export,
)


def play(seed: int, steps: int, kinds: Sequence[Step] = STEPS) -> History:
    """A whole history of a seed; raises with the log when a check fails."""
    history, dice = History("history", seed), Dice(seed)
    try:
        for _ in range(steps):
            choose(dice, kinds)(history, dice)
        history.finish()
    except Exception as error:
        log = "\n  ".join(history.log)
        raise AssertionError(f"seed {seed}: {error}\n  {log}") from error
    finally:
        history.close()
    return history


_NIGHTS: tuple[Step, ...] = (
    History.change_inputs,
    History.clean_night,
    History.disturbed_night,
    History.stormy_night,
)


def play_nights(seed: int, steps: int) -> History:
    """A history of nights alone, disturbed or not."""
    return play(seed, steps, _NIGHTS)
