"""The fixture that runs a night in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dictionary_model import DictionarySource
from run_job import small_config

from pipelines.lake.storage import Storage
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyRequest


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
