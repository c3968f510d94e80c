"""What workers without a model load: no torch, so that they start fast and stay small."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "pipelines.labelled",  # reads and decodes for training and scoring
        "pipelines.slices",
        "pipelines.prepare.run",
        "pipelines.nightly.ray_executor",
        "pipelines.nightly.decode",
        "pipelines.nightly.scan",
    ],
)
def test_torch_is_not_loaded(module):
    script = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0
