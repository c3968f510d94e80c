"""The command itself, with a real (tiny, random) model: options, exit codes, values, summary."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipelines.errors import RunFailedError
from ulsdram_core.checkpoint import save_model
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.extractor import Extractor
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, assemble
from ulsdram_core.schema import Product

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "extract_catalog.py"
COLORS = ("red", "blue", "green")
LOCAL = ["--set", "executor=local", "--set", "num_buckets=4"]


def load_job(path: Path = JOB):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def title(number: int) -> str:
    return f"Acme {COLORS[number % 3]} cotton shirt no {number}" + " very fine" * (number % 4)


def png(number: int) -> bytes:
    import io

    pixels = np.random.default_rng(number % 5).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model directory with random weights large enough to matter."""
    torch.manual_seed(0)
    config = ExtractorConfig.model_validate(
        {
            "model": {
                "text_encoder": {"hidden": 16, "layers": 2, "heads": 2},
                "image_encoder": {"architecture": "tiny", "width": 8},
                "fusion": {"kind": "tir", "heads": 2, "dim": 8, "tir": {"dim": 8}},
                "policy": {"kind": "prototype"},
                "tagger": {"kind": "bilstm_crf"},
            },
            "image": {"size": 32},
        }
    )
    labels = LabelSet(attributes=("color", "material", "size"))
    tokenizer = build_tokenizer([title(n) for n in range(20)], vocab_size=200)
    parts = assemble(config, labels, tokenizer, random_init=True)
    with torch.no_grad():
        for parameter in parts.model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return save_model(parts, tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def lake(tmp_path) -> Path:
    rows = [
        {"product_id": f"p{n:03d}", "title": title(n), "image": png(n) if n % 7 else None}
        for n in range(100)
    ]
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=30)
    return path.parent


def run(*arguments: object) -> dict:
    return load_job().main([str(argument) for argument in arguments])


def read(output: Path) -> pl.DataFrame:
    return pl.read_delta(str(output / "extractions")).sort("product_id")


def assert_equals_in_process(table: pl.DataFrame, model: Path) -> None:
    """The published rows are those of Extractor.extract."""
    products = [
        Product(f"p{n:03d}", {"title": title(n)}, (png(n),) if n % 7 else ()) for n in range(100)
    ]
    expected = Extractor.load(model, device="cpu").extract(products)
    for row, one in zip(table.iter_rows(named=True), expected, strict=True):
        assert (row["product_id"], row["status"]) == (one.product_id, one.status)
        found = [(v["attribute"], v["value"], v["start"], v["end"]) for v in row["values"]]
        assert found == [(v.attribute, v.value, v.start, v.end) for v in one.values]
        for value, other in zip(row["values"], one.values, strict=True):
            assert value["confidence"] == pytest.approx(other.confidence, abs=1e-3)


def test_values_equal_the_extractor_in_process(model, lake, tmp_path):
    summary = run("--model", model, "--input", lake, "--output", tmp_path / "out", *LOCAL)
    table = read(tmp_path / "out")
    assert table["values"].list.len().sum() > 0
    assert_equals_in_process(table, model)
    assert set(table["model_id"]) == {summary["model_id"]}
    again = run("--model", model, "--input", lake, "--output", tmp_path / "out", *LOCAL)
    assert (again["rows_unchanged"], again["rows_worked"]) == (100, 0)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_values_equal_the_extractor_through_ray(model, lake, tmp_path):
    small = ["--set", "chunks.rows=30", "--set", "chunks.batch_rows=10"]
    run("--model", model, "--input", lake, "--output", tmp_path / "out", *small)
    assert_equals_in_process(read(tmp_path / "out"), model)


def test_plan_limit_erase_and_export(model, lake, tmp_path):
    out = tmp_path / "out"
    common = ["--model", model, "--input", lake, "--output", out, *LOCAL]
    assert run(*common, "--plan-only")["rows_to_extract"] == 100
    assert not (out / "extractions").exists()
    assert run(*common, "--limit", 30, "--run-id", "some")["rows_extracted"] == 30
    assert run(*common)["rows_extracted"] == 70
    (tmp_path / "ids").write_text("p001\n")
    summary = run("--output", out, "--erase", tmp_path / "ids", "--vacuum")
    assert summary["products_erased"] == 1
    exporter = load_job(ROOT / "jobs" / "export.py")
    exported = exporter.main(["--table", str(out), "--out", str(tmp_path / "plain")])
    assert exported["products"] == 99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "T"], "found no --model"),
        (["--model", "M", "--output", "T"], "found no --input"),
        (["--model", "MODEL", "--input", "missing", "--output", "T"], "found nothing at"),
        (["--model", "nowhere", "--input", "IN", "--output", "T"], "expected a model directory"),
        (["--model", "MODEL", "--input", "IN", "--output", "T", "--run-id", "a/b"], "run id 'a/b'"),
        (["--model", "MODEL", "--input", "IN", "--output", "T", "--limit", "0"], "at least 1"),
        (["--output", "T", "--set", "gate.max=1"], "unknown key gate.max; gate has min_rows"),
        (["--output", "T", "--erase", "missing"], "found no file at"),
        (["--output", "s3://b/x", "--storage-option", "x=1", "--model", "M"], "storage option"),
    ],
)
def test_wrong_requests(model, lake, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": str(model), "IN": str(lake)}
    with pytest.raises(ValueError, match=message):
        run(*(names.get(argument, argument) for argument in arguments))


def test_failed_gate_is_a_failed_run(model, lake, tmp_path):
    gate = ["--set", "gate.min_rows=10", "--set", "gate.max_degraded_rate=0.0"]
    with pytest.raises(RunFailedError, match=r"degraded_rate is 0\.150, limit 0\.000"):
        run("--model", model, "--input", lake, "--output", tmp_path / "out", *LOCAL, *gate)
    assert not (tmp_path / "out" / "extractions" / "bucket=0").exists()


def test_as_a_command(model, lake, tmp_path):
    def call(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(JOB), *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=240,
        )

    common = ["--model", model, "--output", tmp_path / "out", *LOCAL]
    done = call(*common, "--input", lake, "--summary-out", tmp_path / "summary.json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["status"] == "ok"
    assert json.loads((tmp_path / "summary.json").read_text())["run_id"] == summary["run_id"]
    assert "products/s" in done.stderr
    wrong = call(*common, "--input", tmp_path / "missing")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 1


def test_help_explains_every_option():
    done = subprocess.run(
        [sys.executable, str(JOB), "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    for option in ("--model", "--input", "--plan-only", "--replay-quarantine", "--erase"):
        assert option in done.stdout
    assert os.access(JOB, os.X_OK)
