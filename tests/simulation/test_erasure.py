"""After an erasure with vacuum nothing of the product is left, whatever struck it (a sample)."""

import pytest
from simulation.erasure import Erasure, erasure
from simulation.every_call import sample
from simulation.processes import Fault

COUNT, SEED = 30, 0


@pytest.fixture(scope="module")
def erased() -> Erasure:
    return erasure()


def test_a_sample_of_all_faults(erased):
    trials = sample(list(erased.trials()), COUNT, SEED)
    found = {str(trial): erased.problem(trial) for trial in trials}
    assert not {trial: problem for trial, problem in found.items() if problem}


def test_a_pointer_that_is_not_found_for_a_moment_hides_no_staged_row(erased):
    trials = [t for t in erased.trials() if t.fault is Fault.MISSING and "open.json" in t.call.path]
    assert trials
    assert not [str(trial) for trial in trials if erased.problem(trial)]


@pytest.mark.slow
def test_all_faults(erased):
    found = {str(trial): erased.problem(trial) for trial in erased.trials()}
    assert not {trial: problem for trial, problem in found.items() if problem}
