"""A few hundred mutated inputs of each kind; `input_files.py` tries as many as wanted."""

import pytest
from fuzz.input_files import run


@pytest.mark.parametrize("kind", ["parquet", "csv", "gzip"])
def test_mutated_inputs_are_accounted_for(kind):
    found = run(kind, 0, 300, seconds=20)
    assert not [key for key in found if key.startswith("FAILED")]
    assert found["files"] > 0
