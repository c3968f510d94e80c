"""The simulation stands in for time, storage and processes while a module's tests run."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipelines" / "nightly"))

import simulation.history  # noqa: F401 - every room is loaded before stand-ins are put in
from simulation.world import simulated


@pytest.fixture(scope="module", autouse=True)
def _simulated() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with simulated():
        yield
    logging.disable(before)
