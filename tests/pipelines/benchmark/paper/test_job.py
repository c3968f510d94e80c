"""Whole benchmarks on a few products: finished runs stay, reports are written, time is kept."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.benchmark.paper.job import BenchmarkRequest, list_rows, plans_of, run_benchmark
from pipelines.benchmark.paper.spacy_ner import is_installed

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def request_of(source_of, tmp_path):
    def make(*changes, suite="table2", **fields):
        return BenchmarkRequest(
            suite=suite, source=source_of(*changes), out=tmp_path / "out", **fields
        )

    return make


def ignore(line):
    del line


def stored(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "runs").glob("*.json")}


def test_a_suite_is_run_and_reported(request_of):
    lines = []
    request = request_of(seeds=2)
    summary = run_benchmark(request, lines.append)
    assert summary["runs"] == summary["finished"] == 12
    assert summary["left"] == []
    assert sum("TAG-F1" in line or "minutes" in line for line in lines) == 12
    text = (request.out / "report.md").read_text()
    assert "## Table 2" in text
    assert "What PAR claims" in text
    figures = json.loads((request.out / "report.json").read_text())["tables"]["table2"]
    rows = {row["system"]: row for row in figures["rows"]}
    assert rows["uls_dram"]["figures"]["tag_f1"]["num_seeds"] == 2
    assert figures["claims"][0]["outside_before"] is not None
    assert (request.out / "table2.png").read_bytes().startswith(b"\x89PNG")


class InterruptedRunError(Exception):
    """Stands for a kill between two runs."""


def test_an_interrupted_benchmark_goes_on_where_it_stopped(request_of):
    request = request_of()

    def stop_after_two(line):
        if line.startswith("[2/"):
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        run_benchmark(request, stop_after_two)
    first = stored(request.out)
    assert len(first) == 2
    lines = []
    summary = run_benchmark(request, lines.append)
    assert summary["finished_before"] == 2
    assert summary["finished"] == 6
    after = stored(request.out)
    assert {name: after[name] for name in first} == first, "finished runs are not touched"
    third = run_benchmark(request, ignore)
    assert third["finished_before"] == 6
    assert stored(request.out) == after


def test_suites_share_their_runs(request_of):
    run_benchmark(request_of(), ignore)
    summary = run_benchmark(request_of(suite="fig8"), ignore)
    assert summary["runs"] == summary["finished_before"] == 1


def test_another_setting_is_another_run(request_of):
    run_benchmark(request_of(suite="fig8"), ignore)
    summary = run_benchmark(request_of("optim.task_rate=2e-3", suite="fig8"), ignore)
    assert summary["finished_before"] == 0


def test_no_run_is_started_without_time(request_of):
    lines = []
    summary = run_benchmark(request_of(budget_minutes=0.0), lines.append)
    assert len(summary["left"]) == 6
    assert "run the same command to go on" in lines[-1]
    assert "(not run)" in (Path(summary["report"])).read_text()
    again = run_benchmark(request_of(budget_minutes=10.0), ignore)
    assert again["left"] == []


def test_a_system_that_diverges_fails_alone(request_of):
    change = "systems.uls_vl_par.fit.optim.task_rate=1e30"
    summary = run_benchmark(request_of("settings.epochs=3", change), ignore)
    assert list(summary["failed"]) == ["uls_vl_par"]
    assert summary["left"] == ["uls_vl_par seed 0"]
    assert "+PAR (failed:" in Path(summary["report"]).read_text()


def test_held_out_attributes_are_asked_for(request_of):
    request = request_of(suite="table5", held_out=("color", "gender"))
    summary = run_benchmark(request, ignore)
    assert summary["finished"] == 4 + 2
    text = Path(summary["report"]).read_text()
    assert "## Zero-shot" in text
    assert "Held out: color, gender." in text
    found = json.loads((request.out / "report.json").read_text())["zero_shot"]
    assert set(found) == {"bert_ar", "suopentag"}
    with pytest.raises(ValueError, match="--attributes names 'no such'"):
        run_benchmark(request_of(held_out=("no such",)), ignore)


def test_list_names_every_row(config_of):
    lines = list_rows("all", config_of())
    assert len(lines) == 8 + 6 + 5 + 14 + 4 + 1
    assert any("reader=jave" in line and "encoders fixed" in line for line in lines)


def test_the_peer_is_left_out_where_it_is_not_installed(request_of):
    kinds = {plan.kind for plan in plans_of(request_of(suite="table4"))}
    assert ("spacy" in kinds) == is_installed()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 0}, "--seeds is 0"),
        ({"workers": 0}, "--workers is 0"),
        ({"suite": "table9"}, "found suite 'table9'"),
    ],
)
def test_wrong_requests_are_named(request_of, fields, message):
    with pytest.raises(ValueError, match=message):
        run_benchmark(request_of(**fields), ignore)


@pytest.mark.slow
def test_processes_find_what_one_finds(request_of, tmp_path):
    one, two = request_of(), request_of(workers=2)
    run_benchmark(one, ignore)
    figures = [json.loads(p.read_text())["figures"] for p in sorted((one.out / "runs").iterdir())]
    two = BenchmarkRequest("table2", two.source, tmp_path / "two", workers=2)
    summary = run_benchmark(two, ignore)
    assert summary["left"] == []
    others = [json.loads(p.read_text())["figures"] for p in sorted((two.out / "runs").iterdir())]
    assert others == figures


@pytest.mark.slow
def test_a_killed_command_goes_on(prepared, tmp_path):
    command = [sys.executable, str(ROOT / "jobs" / "benchmark.py"), "--suite", "table2"]
    command += ["--data", str(prepared), "--out", str(tmp_path / "out")]
    for change in ("settings.epochs=2", "settings.picture_size=32", "settings.batch_size=4"):
        command += ["--set", change]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "out" / "runs").is_dir() or not stored(tmp_path / "out"):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    first = stored(tmp_path / "out")
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(found.stdout.splitlines()[-1])
    assert summary["finished_before"] == len(first) >= 1
    assert summary["finished"] == 6
    after = stored(tmp_path / "out")
    assert {name: after[name] for name in first} == first
