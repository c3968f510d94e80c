"""Fixtures of the nightly tests; helper modules become importable here and in Ray workers."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = str(Path(__file__).resolve().parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys([HERE, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
)

from dictionary_model import DictionarySource  # noqa: E402

from pipelines.nightly.job import NightlyJob  # noqa: E402
from pipelines.nightly.settings import NightlyConfig, NightlyRequest  # noqa: E402
from pipelines.storage import Storage  # noqa: E402

SMALL = {
    "executor": "local",
    "num_buckets": 4,
    "normalization": None,
    "chunks": {"rows": 32, "batch_rows": 8},
    "waves": {"rows": 50},
    "gate": {"max_quarantine_rate": 1.0, "max_null_rate": 1.0, "max_row_change": 10.0},
    "lock": {"beat_seconds": 0.2, "stale_seconds": 1.0},
}


def small_config(**changes) -> NightlyConfig:
    """Small sizes, so that a hundred rows make several waves."""
    return NightlyConfig(**{**SMALL, **changes})


@pytest.fixture
def run_night(tmp_path: Path) -> Callable:
    """run_night(inputs, ...) -> summary; the table is tmp_path/out unless told otherwise."""

    def run(*inputs, output=None, model=None, config=None, **request) -> dict:
        job = NightlyJob(
            model or DictionarySource(),
            Storage.of(output or tmp_path / "out"),
            config or small_config(),
        )
        return job.run(NightlyRequest(tuple(map(str, inputs)), **request))

    return run
