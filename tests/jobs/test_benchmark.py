"""The benchmark's command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import benchmark as job
from jobs import demo

ROOT = Path(__file__).resolve().parents[2]


def test_list_names_every_row(capsys):
    summary = job.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert summary == {"rows": len(lines), "systems": 25}
    assert sum(line.startswith("table4") for line in lines) == 14


def test_list_shows_the_encoders_asked_for(capsys):
    encoders = ["--text-encoder", "bert-base-uncased", "--image-encoder", "resnet18"]
    job.main(["--list", "--suite", "table5", *encoders])
    lines = capsys.readouterr().out.splitlines()
    assert "text=bert-base-uncased pictures=resnet18" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "table9"], "invalid choice"),
        (["--data", "/no/such/folder"], "found no Parquet files"),
        (["--limit", "0"], "--limit is 0"),
        (["--set", "settings.epoch=1"], "settings.epoch"),
        (["--image-encoder", "resnet18@"], "expected ARCHITECTURE"),
        (["--attributes", "/no/such/file"], "found no such file"),
    ],
)
def test_a_wrong_request_is_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        job.main(["--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("job_main", [job.main, demo.main], ids=["benchmark", "demo"])
def test_out_is_a_folder_of_this_machine(job_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--out is s3://lake/out, expected a folder on this"):
        job_main(["--out", "s3://lake/out"])
    assert not list(tmp_path.iterdir())


def test_an_empty_attributes_file_is_named(tmp_path):
    (tmp_path / "names").write_text("\n \n")
    with pytest.raises(ValueError, match="names no attribute"):
        job.main(["--attributes", str(tmp_path / "names")])


def test_the_demo_is_benchmarked_without_any_files(tmp_path):
    command = [sys.executable, str(ROOT / "jobs" / "benchmark.py"), "--suite", "fig8"]
    command += ["--out", str(tmp_path / "out"), "--limit", "16"]
    for change in ("settings.demo_products=40", "settings.epochs=1", "settings.picture_size=32"):
        command += ["--set", change]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    summary = json.loads(found.stdout.splitlines()[-1])
    assert summary["finished"] == 1
    assert "[1/1] uls_dram seed 0" in found.stdout
    assert "## Figure 8" in found.stdout
    assert (tmp_path / "out" / "fig8.png").is_file()
