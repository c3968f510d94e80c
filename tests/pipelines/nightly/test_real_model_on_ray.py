"""A real extractor on Ray whose processes are killed: the table equals the uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
import torch
from shop_catalogue import products, write_files

from ulsdram_core.checkpoint import save_model
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, assemble

ROOT = Path(__file__).resolve().parents[3]
COUNT = 1200
SMALL = ["chunks.rows=100", "chunks.batch_rows=20", "chunks.part_rows=40", "num_buckets=4"]
SMALL += ["gate.max_null_rate=1.0", "workers.model_workers=2", "attempts.receipt_seconds=0"]
SMALL += ["lock.beat_seconds=0.2", "lock.stale_seconds=1.0"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Path:
    return write_files(tmp_path_factory.mktemp("lake") / "in", products(COUNT), files=4, group=100)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = ExtractorConfig.model_validate(
        {
            "model": {
                "text_encoder": {"hidden": 16, "layers": 1, "heads": 2},
                "image_encoder": {"architecture": "tiny", "width": 8},
                "fusion": {"kind": "tir", "heads": 2, "dim": 8, "tir": {"dim": 8}},
            },
            "image": {"size": 32},
        }
    )
    titles = [row["title"] for row in products(50)]
    tokenizer = build_tokenizer(titles, vocab_size=200)
    labels = LabelSet(attributes=("color", "material", "size"))
    parts = assemble(config, labels, tokenizer, random_init=True)
    with torch.no_grad():
        for parameter in parts.model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return save_model(parts, tmp_path_factory.mktemp("model") / "m")


class Night:
    """The job in a process of its own, with a private cluster."""

    def __init__(self, model: Path, lake: Path, output: Path) -> None:
        self.output = output
        sets = [word for item in SMALL for word in ("--set", item)]
        command = [sys.executable, ROOT / "jobs" / "extract_catalog.py", "--model", model]
        command += ["--input", lake, "--output", output, *sets]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("RAY_ADDRESS", None)
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_receipts(self) -> None:
        deadline = time.monotonic() + 200
        while not list(self.output.glob("_runs/*/staging/receipts/*.json")):
            assert self.process.poll() is None, self.process.communicate()[1][-3000:]
            assert time.monotonic() < deadline, "nothing was staged"
            time.sleep(0.02)

    def kill_worker(self, name: str) -> None:
        """SIGKILL a worker by the task or actor that it serves."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                if name in "".join(process.cmdline()):
                    process.kill()
                    return
            time.sleep(0.005)
        raise AssertionError(f"no process {name}")

    def finish(self) -> dict:
        out, errors = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, errors[-3000:]
        noise = ("Execution plan", "Progress bars", "PlacementGroupCleaner", "issue_detector")
        assert not [word for word in noise if word in errors], errors[-3000:]
        return json.loads(out.strip().splitlines()[-1])


def rows(output: Path) -> list[dict]:
    """Scores rounded: rows of one call differ, so last digits do."""
    table = pl.read_delta(str(output / "extractions")).sort("product_id")
    found = []
    for row in table.iter_rows(named=True):
        values = [
            (v["attribute"], v["value"], v["start"], v["end"], round(v["confidence"], 2))
            for v in row["values"]
        ]
        found.append((row["product_id"], row["status"], row["reason"], row["input_hash"], values))
    return found


@pytest.fixture(scope="module")
def calm(model, lake, tmp_path_factory) -> list:
    night = Night(model, lake, tmp_path_factory.mktemp("calm") / "out")
    assert night.finish()["rows_extracted"] == COUNT
    return rows(night.output)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["driver", "decode_stage", "ModelStage"])
def test_a_killed_process_changes_nothing(model, lake, calm, tmp_path, victim):
    night = Night(model, lake, tmp_path / "out")
    night.wait_for_receipts()
    if victim == "driver":
        os.kill(night.process.pid, signal.SIGKILL)
        night.process.communicate()
        night = Night(model, lake, tmp_path / "out")
    else:
        night.kill_worker(victim)
    summary = night.finish()
    assert summary["poison_rows"] == 0
    if victim == "driver":
        assert 0 < summary["rows_worked"] < COUNT  # what has a receipt is not done again
    assert rows(night.output) == calm
