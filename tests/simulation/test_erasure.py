"""After an erasure with vacuum nothing of the product is left, whatever struck it (a sample)."""

import pytest
from simulation.erasure import Erasure, erasure
from simulation.every_call import sample

COUNT, SEED = 30, 0


@pytest.fixture(scope="module")
def erased() -> Erasure:
    return erasure()


def test_a_sample_of_all_faults(erased):
    trials = sample(list(erased.trials()), COUNT, SEED)
    found = {str(trial): erased.problem(trial) for trial in trials}
    assert not {trial: problem for trial, problem in found.items() if problem}


@pytest.mark.slow
def test_all_faults(erased):
    found = {str(trial): erased.problem(trial) for trial in erased.trials()}
    assert not {trial: problem for trial, problem in found.items() if problem}
