"""A fault at a storage call of two nights changes nothing in the end (a sample; all: run.py)."""

import pytest
from simulation.every_call import Nights, sample, two_nights
from simulation.processes import Call, Fault

COUNT, SEED = 60, 0


@pytest.fixture(scope="module")
def nights() -> Nights:
    return two_nights()


def test_a_sample_of_all_faults(nights):
    found = {str(trial): nights.problem(trial) for trial in _trials(nights)}
    assert not {trial: problem for trial, problem in found.items() if problem}


@pytest.mark.slow
def test_all_faults(nights):
    found = {str(trial): nights.problem(trial) for trial in nights.trials()}
    assert not {trial: problem for trial, problem in found.items() if problem}


def _trials(nights: Nights) -> list:
    return sample(list(nights.trials()), COUNT, SEED)


@pytest.mark.parametrize(
    "place", ["delta open", "accepted-", "read an input"], ids=["a table", "a plan", "an input"]
)
def test_not_found_for_a_moment_is_not_empty(nights, place):
    trials = [t for t in nights.trials() if t.fault is Fault.MISSING and _is_at(t.call, place)]
    found = {str(trial): nights.problem(trial) for trial in sample(trials, 12, SEED)}
    assert found
    assert not {trial: problem for trial, problem in found.items() if problem}


def _is_at(call: Call, place: str) -> bool:
    if place == "read an input":
        return call.kind in ("open", "get") and "/in/" in call.path
    return place in (call.kind, call.path.rsplit("/", 1)[-1][: len(place)])
