"""Histories of a table: a fixed set of seeds, and Hypothesis, which shrinks what it finds.

A seed that fails replays with `python tests/simulation/run.py --histories 1 --seed N`.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from simulation.history import History, play, play_nights

NIGHTS = 200
SEEDS = range(5)


def test_simulated_nights():
    done, seed = 0, 0
    while done < NIGHTS:
        done += play_nights(seed, 20).nights
        seed += 1


@pytest.mark.parametrize("seed", SEEDS)
def test_histories_of_fixed_seeds(seed):
    play(seed, 20)


class _Drawn:
    """Choices of Hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def number(self, end: int) -> int:
        return self._data.draw(st.integers(0, end - 1))


class TableMachine(RuleBasedStateMachine):
    """Every step of `History` as a rule."""

    def __init__(self) -> None:
        super().__init__()
        self._history = History("machine")

    @rule(data=st.data())
    def change_inputs(self, data):
        self._history.change_inputs(_Drawn(data))

    @rule(data=st.data())
    def clean_night(self, data):
        self._history.clean_night(_Drawn(data))

    @rule(data=st.data())
    def limited_night(self, data):
        self._history.limited_night(_Drawn(data))

    @rule(data=st.data())
    def disturbed_night(self, data):
        self._history.disturbed_night(_Drawn(data))

    @rule(data=st.data())
    def stormy_night(self, data):
        self._history.stormy_night(_Drawn(data))

    @rule(data=st.data())
    def frozen_night(self, data):
        self._history.frozen_night(_Drawn(data))

    @rule(data=st.data())
    def erase(self, data):
        self._history.erase(_Drawn(data))

    @rule(data=st.data())
    def rollback(self, data):
        self._history.rollback(_Drawn(data))

    @rule(data=st.data())
    def new_model(self, data):
        self._history.new_model(_Drawn(data))

    @rule(data=st.data())
    def export(self, data):
        self._history.export(_Drawn(data))

    def teardown(self):
        self._history.close()


def _machine(examples: int, *, is_random: bool) -> None:
    run_state_machine_as_test(
        TableMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=10,
            deadline=None,
            derandomize=not is_random,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_state_machine():
    _machine(10, is_random=False)


@pytest.mark.slow
def test_state_machine_at_length():
    _machine(200, is_random=True)
