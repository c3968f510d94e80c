"""A killed pre-training run, run again, is the run that was never killed."""

import json

import pytest
from killed_run import finish, kill_and_continue, losses, start
from small_run import SMALL_PRETRAINING

from pipelines.demo.tables import write_splits
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

# One small stream a batch, for more steps to be killed at.
SETTINGS = [*SMALL_PRETRAINING, "pretrain.stream_pairs=8", "pretrain.growth.start_streams=1"]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Starts the run into a folder."""
    data = tmp_path_factory.mktemp("pairs")
    config = DemoConfig(num_products=120, picture_size=32, duplicates=0.4)
    write_splits(config, Storage.of(data))
    return lambda out: start("pretrain_eclip.py", "eclip_tiny", data, out, SETTINGS)


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    finish(command(out))
    return losses(out)


@pytest.mark.parametrize("step", [1, 6, 17])
def test_a_killed_driver_is_continued(command, unbroken, tmp_path, step):
    out = tmp_path / "out"
    kill_and_continue(command, out, step=step, unbroken=unbroken)
    validations = [
        json.loads(line)["step"]
        for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        if json.loads(line)["kind"] == "epoch"
    ]
    assert validations == sorted(set(validations))
    assert len(validations) == 4
