"""report, explain and compare as a user types them: exit codes, files, one clear line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import compare, explain, report
from pipelines.command.run import run_command

ROOT = Path(__file__).resolve().parents[2]
JOBS = {"report": report, "explain": explain, "compare": compare}


def test_report_runs_as_a_script(shop, tmp_path):
    out = tmp_path / "report.html"
    command = [
        sys.executable, str(ROOT / "jobs" / "report.py"), "--table", shop.table, "--products",
        shop.catalogue, "--model", shop.model("dram"), "--out", str(out), "--cards", "5",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["cards"], summary["version"]) == (5, 2)
    assert summary["bytes"] == len(out.read_bytes())


def test_explain_from_a_table_and_from_a_title(shop, tmp_path, capsys):
    product = next(p for p in shop.products if p.picture)
    by_id = ["--products", shop.catalogue, "--product-id", product.product_id]
    summary = explain.main(["--model", shop.model("dram"), *by_id])
    assert summary["models"][0]["heatmaps"] > 2
    assert product.product_id in capsys.readouterr().out

    picture = tmp_path / "p.png"
    picture.write_bytes(product.picture)
    out = tmp_path / "e.html"
    summary = explain.main(
        ["--model", shop.model("dram"), "--baseline-model", shop.model("text"), "--title",
         "Red <b>", "--description", "soft", "--image", str(picture), "--tokens", "red",
         "--html", str(out)]
    )  # fmt: skip
    assert [m["heatmaps"] for m in summary["models"]] == [1, 0]
    assert "Red \\u003cb\\u003e" in out.read_text(encoding="utf-8")


def test_compare_prints_and_a_failed_gate_is_exit_code_1(shop, capsys):
    arguments = ["--table", f"{shop.table}@night-1", "--table", shop.table]
    summary = compare.main([*arguments, "--min-kept-share", "0.5"])
    assert summary["gate"][0]["verdict"] == "passed"
    with pytest.raises(SystemExit) as caught:
        run_command(compare.main, [*arguments, "--max-changed-share", "0.001"])
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "the gate failed: changed share" in printed.err
    assert json.loads(printed.out.splitlines()[-1])["status"] == "failed"
    assert "FAILED" in printed.out


@pytest.mark.parametrize(
    ("job", "arguments", "message"),
    [
        ("report", ["--table", "/nowhere", "--out", "x.html"], "no table"),
        ("report", ["--table", "T", "--out", "x.html", "--cards", "-1"], "--cards"),
        ("report", ["--table", "T", "--out", "x.html", "--model", "M"], "--products"),
        ("report", ["--table", "T", "--out", "x", "--products", "P", "--baseline-model", "M"],
         "--model"),
        ("explain", ["--model", "M"], "--title"),
        ("explain", ["--model", "/nowhere", "--title", "x"], "model directory"),
        ("explain", ["--model", "M", "--title", "x", "--product-id", "1"], "both"),
        ("explain", ["--model", "M", "--title", "x", "--image", "/no.png"], "/no.png"),
        ("compare", ["--table", "T"], "expected two"),
        ("compare", ["--table", "T", "--table", "U", "--max-changed-share", "3"], "share"),
    ],
)  # fmt: skip
def test_wrong_request_is_one_clear_line(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(JOBS[job].main, arguments)
    errors = capsys.readouterr().err.splitlines()
    assert (caught.value.code, len(errors)) == (2, 1)
    assert message in errors[0]
