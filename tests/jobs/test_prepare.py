from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import ray

from jobs.prepare import main
from pipelines.command.run import run_command

ROOT = Path(__file__).resolve().parents[2]
LINE = "c_1\ts_{0}\t牛皮革面料\t<材质>牛皮革</材质>面料\n"


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "prepare.py"), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def cluster_address(ray_cluster):  # noqa: ARG001
    return ray.get_runtime_context().gcs_address


@pytest.fixture
def mepave(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for split in ("train", "valid", "test"):
        lines = [LINE.format(number) for number in range(3)]
        (source / f"jdair.jave.fashion.{split}.txt").write_text("".join(lines) + "broken\n")
    return source


@pytest.mark.ray
def test_done_is_0_with_a_summary(mepave, tmp_path, cluster_address):
    done = run(
        "mepave", "--in", mepave, "--out", "out", "--summary-out", "s.json",
        cwd=tmp_path, RAY_ADDRESS=cluster_address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["splits"] == {"train": 3, "valid": 3, "test": 3}
    assert summary["rows"]["dropped_by_reason"] == {"wrong_columns": 3}
    assert json.loads((tmp_path / "s.json").read_text()) == summary
    assert "Traceback" not in done.stderr
    assert pl.read_parquet(tmp_path / "out" / "test" / "*.parquet").height == 3


@pytest.mark.ray
def test_nothing_usable_is_2_and_keeps_the_old_folder(mepave, tmp_path, cluster_address):
    old = tmp_path / "out"
    old.mkdir()
    report = {"format": "ulsdram prepared products", "complete": True}
    (old / "report.json").write_text(json.dumps(report))
    for file in mepave.iterdir():
        file.write_text("broken\n")
    done = run("mepave", "--in", mepave, "--out", old, cwd=tmp_path, RAY_ADDRESS=cluster_address)
    assert done.returncode == 2
    assert "no usable product" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert json.loads((old / "report.json").read_text()) == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mepave", "--in", "absent", "--out", "out"], "found nothing at --in"),
        (["tagged", "--in", "in", "--out", "out", "--title", "name"], "found no *.parquet"),
        (["mepave", "--in", "in", "--out", "in"], "in one another"),
        (["mepave", "--in", "in", "--out", "taken"], "another kind"),
        (["mepave", "--in", "in", "--out", "o", "--valid-share", "0.6", "--test-share", "0.6"],
         "less than all"),
        (["mepave", "--in", "in", "--out", "o", "--corrections", "c.csv"], "no corrections file"),
        (["mepave", "--in", "in", "--out", "o", "--images", "p"], "no folder at --images"),
        (["mepave", "--in", "in", "--out", "o", "--title", "t"], "unrecognized arguments"),
        (["other", "--in", "in"], "invalid choice"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("mepave")
def test_wrong_requests_are_2_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious.txt").write_text("data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        run_command(main, arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert len(error.splitlines()) == 1
    assert message in error
    assert (tmp_path / "taken" / "precious.txt").read_text() == "data"


def test_a_dashboard_is_no_cluster(mepave, tmp_path):
    address = "http://127.0.0.1:8265"
    done = run("mepave", "--in", mepave, "--out", "out", cwd=tmp_path, RAY_ADDRESS=address)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "host:port" in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(main, ["tagged", "--help"])
    assert exit_.value.code == 0
    assert "--corrections" in capsys.readouterr().out
