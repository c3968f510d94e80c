"""A killed training run, run again, is the run that was never killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT_STEPS = 2

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]


def start(data: Path, out: Path, overrides: list[str]) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--recipe", "tiny"]
    command += ["--data", str(data), "--out", str(out)]
    for override in [*overrides, f"run.checkpoint_steps={CHECKPOINT_STEPS}", "run.pool_batches=2"]:
        command += ["--set", override]
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]


def losses(out: Path) -> dict[int, float]:
    path = out / "metrics.jsonl"
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    assert len({entry["step"] for entry in steps}) == len(steps)
    return {entry["step"]: entry["loss"] for entry in steps}


def wait_for_step(process: subprocess.Popen, out: Path, step: int) -> None:
    deadline = time.monotonic() + 600
    while len(losses(out)) < step:
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def unbroken(demo_data, small_overrides, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    finish(start(demo_data, out, small_overrides))
    return losses(out)


@pytest.mark.parametrize("step", [1, 5, 9])
def test_a_killed_driver_is_continued(demo_data, small_overrides, unbroken, tmp_path, step):
    out = tmp_path / "out"
    process = start(demo_data, out, small_overrides)
    wait_for_step(process, out, step)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(losses(out))
    assert done < len(unbroken)
    finish(start(demo_data, out, small_overrides))
    assert losses(out) == pytest.approx(unbroken, abs=1e-4)
    stored = json.loads((out / "model" / "metrics.json").read_text(encoding="utf-8"))
    assert stored["steps"] == len(unbroken)


def test_a_killed_worker_is_replaced(demo_data, small_overrides, unbroken, tmp_path):
    out = tmp_path / "out"
    process = start(demo_data, out, small_overrides)
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
    assert losses(out) == pytest.approx(unbroken, abs=1e-4)


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
