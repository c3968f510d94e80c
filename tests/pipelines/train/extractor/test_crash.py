"""A killed training run, run again, is the run that was never killed."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from killed_run import finish, kill_and_continue, losses, start, wait_for_step
from safetensors.torch import load_file

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def command(demo_data, small_overrides):
    """Starts the run into a folder."""
    changes = ["run.checkpoint_steps=2", "run.pool_batches=2", "fit.average=true"]
    overrides = [*small_overrides, *changes]
    return lambda out: start("train.py", "tiny", demo_data, out, overrides)


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    finish(command(out))
    return out


@pytest.mark.parametrize("step", [1, 5, 9])
def test_a_killed_driver_is_continued(command, unbroken, tmp_path, step):
    out = tmp_path / "out"
    expected = losses(unbroken)
    kill_and_continue(command, out, step=step, unbroken=expected)
    stored = json.loads((out / "model" / "metrics.json").read_text(encoding="utf-8"))
    assert stored["steps"] == len(expected)
    # The mean of the weights goes on, too.
    weights, unbroken_weights = (
        load_file(f / "model" / "model.safetensors") for f in (out, unbroken)
    )
    torch.testing.assert_close(weights, unbroken_weights, rtol=0, atol=1e-4)


def test_a_killed_worker_is_replaced(command, unbroken, tmp_path):
    out = tmp_path / "out"
    process = command(out)
    wait_for_step(process, out, 3)
    found = subprocess.run(
        ["pgrep", "-s", str(process.pid), "-f", "RayTrainWorker"],
        capture_output=True,
        text=True,
        check=False,
    )
    pids = [int(pid) for pid in found.stdout.split()] or _workers_below(process.pid)
    assert pids, "no train worker to kill"
    os.kill(pids[0], signal.SIGKILL)
    finish(process)
    assert losses(out) == pytest.approx(losses(unbroken), abs=1e-4)


def _workers_below(root: int) -> list[int]:
    """Train workers among the descendants of a process, by the title that Ray gives them."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(folder.name)] = int(stat[1])
                titles[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:
                continue
    found = []
    for pid, title in titles.items():
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and "RayTrainWorker" in title:
            found.append(pid)
    return found
