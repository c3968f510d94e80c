"""What workers without a model load: no torch, so that they start fast and stay small."""

import subprocess
import sys

SCRIPT = """
import importlib, sys

for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} loads torch")
"""
MODULES = [
    "pipelines.labelled.table",  # reads and decodes for training and scoring
    "pipelines.evaluate.slices",
    "pipelines.prepare.run",
    "pipelines.nightly.work.ray_executor",
    "pipelines.nightly.work.decode",
    "pipelines.nightly.plan.scan",
]


def test_torch_is_not_loaded():
    command = [sys.executable, "-c", SCRIPT, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
