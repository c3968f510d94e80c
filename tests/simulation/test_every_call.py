"""A fault at a storage call of two nights changes nothing in the end (a sample; all: run.py)."""

import pytest

from simulation.every_call import Nights, sample, two_nights

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
