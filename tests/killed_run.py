"""Training jobs in processes of their own, to be killed and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[1] / "jobs"


def start(script: str, recipe: str, data: Path, out: Path, overrides: Sequence[str]):
    """Start a job with a session, and so a process group, of its own."""
    command = [sys.executable, str(JOBS / script), "--recipe", recipe]
    command += ["--data", str(data), "--out", str(out)]
    for override in overrides:
        command += ["--set", override]
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    """Wait until a job has ended well."""
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]


def losses(out: Path) -> dict[int, float]:
    """The losses by step that a run has logged; no step is logged twice."""
    path = out / "metrics.jsonl"
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    assert len({entry["step"] for entry in steps}) == len(steps)
    return {entry["step"]: entry["loss"] for entry in steps}


def wait_for_step(process: subprocess.Popen, out: Path, step: int) -> None:
    """Wait until a running job has logged this many steps."""
    deadline = time.monotonic() + 600
    while len(losses(out)) < step:
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.05)


def kill_and_continue(
    command: Callable[[Path], subprocess.Popen], out: Path, *, step: int, unbroken: dict[int, float]
) -> None:
    """Kill a run's driver after a step and start it again: its losses are the unbroken run's."""
    process = command(out)
    wait_for_step(process, out, step)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(losses(out)) < len(unbroken)
    finish(command(out))
    assert losses(out) == pytest.approx(unbroken, abs=1e-4)
