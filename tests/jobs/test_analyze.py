"""The command as a user types it: formats, filters, and one clear line when it is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake

from pipelines.analysis.request import QUERIES
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, EXTRACTIONS_SCHEMA, create_table

ROOT = Path(__file__).resolve().parents[2]


def run(job: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "jobs" / job), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def row(product_id: str, *values: tuple[str, str, float]) -> dict:
    return {
        "product_id": product_id,
        "bucket": 0,
        "status": "ok",
        "values": [
            {"attribute": name, "value": value, "source": "title", "start": 0,
             "end": len(value), "confidence": confidence}
            for name, value, confidence in values
        ],
        "schema_version": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("analyze")
    table = Storage.of(path / "t")
    create_table(table, EXTRACTIONS, num_buckets=1)
    first = [row("a", ("color", "red", 0.25)), row("b", ("size", "XL", 0.75))]
    second = [row("a", ("color", "=red", 0.25), ("size", "S", 0.5)), first[1]]
    for run_id, rows in (("r1", first), ("r2", second)):
        write_deltalake(
            table.join(EXTRACTIONS).uri,
            pa.Table.from_pylist(rows, EXTRACTIONS_SCHEMA),
            mode="overwrite",
            commit_properties=CommitProperties(custom_metadata={"run_id": run_id}),
        )
    products = pl.DataFrame(
        {
            "product_id": ["a", "b"],
            "title": ["red S", "XL"],
            "category": ["x", "y"],
            "specs": [[{"attribute": "color", "value": "blue"}], None],
        }
    )
    products.write_parquet(path / "products.parquet")
    return path


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run("analyze.py", "--table", str(folder / "t"), *arguments)


def summary_of(done: subprocess.CompletedProcess) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


def test_every_query_writes_its_answer(folder, tmp_path):
    # in one process: starting Python for each would take most of the time
    from jobs.analyze import main

    products = str(folder / "products.parquet")
    for query in QUERIES:
        out = tmp_path / f"{query}.json"
        summary = main(
            ["--table", str(folder / "t"), "--query", query, "--since", "r1",
             "--products", products, "--out", str(out)]
        )  # fmt: skip
        assert summary["rows"] == len(json.loads(out.read_text(encoding="utf-8"))), query


def test_terminal_table_then_summary(folder):
    done = analyze(folder, "--query", "coverage")
    assert done.returncode == 0
    assert "| color " in done.stdout
    assert summary_of(done)["version"] == 2


def test_filters_time_travel_and_csv(folder, tmp_path):
    out = tmp_path / "long.csv"
    done = analyze(
        folder, "--query", "long", "--attribute", "color", "--category", "x",
        "--products", str(folder / "products.parquet"), "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert pl.read_csv(out)["value"].to_list() == ["'=red"]
    assert summary_of(done)["rows"] == 1
    earlier = analyze(folder, "--sql", "SELECT value FROM values", "--at", "r1", "--format", "json")
    *lines, _ = earlier.stdout.splitlines()
    assert sorted(r["value"] for r in json.loads("\n".join(lines))) == ["XL", "red"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--query", "nope"), "expected one of summary"),
        (("--query", "drift"), "--since"),
        (("--query", "drift", "--since", "r9"), "no run 'r9'"),
        (("--query", "fill-gain"), "--products"),
        (("--query", "fill-gain", "--products", "/nowhere"), "found nothing at"),
        (("--query", "histogram", "--bins", "0"), "bins"),
        (("--sql", "SELECT nope FROM values"), "nope"),
        (("--sql", "SELEC"), "cannot be read"),
        (("--at", "12"), "no version 12"),
        (("--mapping", "/nowhere.toml"), "no readable rules"),
        (("--format", "parquet"), "--out"),
        (("--out", "x.docx"), "docx"),
    ],
)
def test_wrong_request_is_one_clear_line(folder, arguments, message, capsys):
    from jobs.analyze import main
    from pipelines.command.run import run_command

    with pytest.raises(SystemExit) as caught:
        run_command(main, ["--table", str(folder / "t"), *arguments])
    assert caught.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]


def test_wrong_table_is_one_clear_line(tmp_path):
    done = analyze(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "found no table" in done.stderr


def test_review_export_and_import(folder, tmp_path):
    queue, corrections = tmp_path / "queue.csv", tmp_path / "corrections.parquet"
    products = str(folder / "products.parquet")
    done = run(
        "review.py", "export", "--table", str(folder / "t"), "--products", products,
        "--threshold", "0.6", "--out", str(queue),
    )  # fmt: skip
    assert summary_of(done)["values"] == 2, done.stderr
    text = queue.read_text(encoding="utf-8-sig")
    queue.write_text(text.replace(",,,k.", ",,no,red,k.").replace(",,no,", ",no,", 9))
    done = run("review.py", "import", "--in", str(queue), "--out", str(corrections))
    assert summary_of(done)["decisions"] == 2, done.stderr
    assert pl.read_parquet(corrections)["right_value"].to_list() == ["red", "red"]
    done = run("review.py", "import", "--out", str(corrections))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
