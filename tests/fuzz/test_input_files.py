"""A few hundred mutated inputs of each kind; `input_files.py` tries as many as wanted."""

import pytest
from fuzz.input_files import run


@pytest.mark.parametrize("kind", ["parquet", "csv", "gzip"])
def test_mutated_inputs_are_accounted_for(kind):
    found = run(kind, 0, 300, seconds=20)
    assert not [key for key in found if key.startswith("FAILED")]
    assert found["files"] > 0


@pytest.mark.parametrize("seed", [5911, 6733])
def test_broken_statistics_in_a_footer_do_not_end_the_process(seed):
    found = run("parquet", seed, 1)
    assert not [key for key in found if key.startswith(("FAILED", "KILLED"))]
