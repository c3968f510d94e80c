"""Nights one after the other: what is worked on, what is published, what is left alone."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import deltalake
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dictionary_model import WORDS, DictionarySource
from run_job import small_config
from shop_catalogue import (
    SCHEMA,
    assert_same_tables,
    extractions,
    picture,
    product,
    products,
    quarantine,
    write_file,
    write_files,
)

from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyRequest


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return write_files(tmp_path / "in", products(90))


@pytest.fixture
def output(tmp_path: Path) -> Storage:
    return Storage.of(tmp_path / "out")


def test_first_night_extracts_every_row(lake, output, run_night):
    summary = run_night(lake, run_id="first")
    table = extractions(output)
    assert summary["rows_extracted"] == len(table) == 90
    assert set(table["run_id"]) == {"first"}
    row = table.row(5, named=True)
    title = product(5)["title"]
    assert row["values"][0]["value"] in WORDS["color"]
    for value in row["values"]:
        text = title if value["source"] == "title" else product(5)["description"]
        assert text[value["start"] : value["end"]] == value["value"]


def test_unchanged_night_loads_no_model(lake, output, run_night, tmp_path):
    loads = tmp_path / "loads"
    model = DictionarySource(loads=str(loads))
    run_night(lake, model=model)
    loads.unlink()
    before = extractions(output)
    summary = run_night(lake, model=model)
    assert not loads.exists()
    assert summary["rows_unchanged"] == 90
    assert summary["files_scanned"] == summary["rows_worked"] == summary["bytes_read"] == 0
    assert extractions(output).equals(before)


def test_rewritten_files_cost_only_the_rows_that_changed(lake, output, run_night):
    run_night(lake)
    before = extractions(output)
    rows = products(90)
    rows[17] = product(17, title="black leather boot")
    rows[60] = product(60, image=picture(200))
    rows[61] = product(61, price=0.5)  # a column that the model does not read
    write_files(lake, rows, files=2, group=13)
    (lake / "part-002.parquet").unlink()
    summary = run_night(lake, run_id="second")
    assert (summary["rows_worked"], summary["rows_unchanged"]) == (2, 88)
    after = extractions(output)
    changed = after.filter(pl.col("run_id") == "second")["product_id"].to_list()
    assert changed == ["p000017", "p000060"]
    same = ~pl.col("product_id").is_in(changed)
    assert after.filter(same).equals(before.filter(same))
    assert summary["write_amplification"] == summary["rows_written"] / 2


def test_vanished_products_are_marked_and_come_back(lake, output, run_night):
    run_night(lake)
    write_files(lake, products(80))
    assert run_night(lake)["rows_vanished"] == 10
    table = extractions(output)
    gone = table.filter(pl.col("status") == "vanished")
    assert gone["product_id"].to_list() == [f"p{i:06d}" for i in range(80, 90)]
    assert gone["values"].list.len().min() > 0
    assert run_night(lake)["rows_vanished"] == 0
    write_files(lake, products(85))
    assert run_night(lake)["rows_worked"] == 5
    assert (extractions(output)["status"] == "vanished").sum() == 5


def test_nothing_vanishes_when_a_file_cannot_be_read(lake, output, run_night):
    run_night(lake)
    (lake / "part-001.parquet").write_bytes(b"PAR1 broken")
    summary = run_night(lake)
    assert (summary["rows_vanished"], summary["files_unreadable"]) == (0, 1)
    assert (extractions(output)["status"] == "ok").all()


def test_limit_defers_rows_and_marks_nothing_vanished(lake, output, run_night):
    first = run_night(lake, limit=30)
    assert (first["rows_extracted"], first["rows_deferred"]) == (30, 60)
    assert extractions(output)["product_id"].to_list() == [f"p{i:06d}" for i in range(30)]
    assert run_night(lake, limit=30)["rows_extracted"] == 30
    assert run_night(lake)["rows_extracted"] == 30
    assert len(extractions(output)) == 90


@pytest.mark.parametrize("change", [{"is_full": True}, {"model": DictionarySource(version="2")}])
def test_full_and_new_model_extract_everything_again(lake, run_night, change):
    run_night(lake)
    assert run_night(lake, **change)["rows_worked"] == 90


def test_new_model_id_is_recorded(lake, output, run_night):
    run_night(lake)
    run_night(lake, model=DictionarySource(version="2"))
    assert set(extractions(output)["model_id"]) == {"dictionary-2"}


def test_run_id_is_idempotent(lake, run_night):
    run_night(lake, run_id="tonight")
    write_files(lake, products(95))
    again = run_night(lake, run_id="tonight")
    assert (again["state"], again["rows_in"]) == ("already published", 90)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"model": DictionarySource(version="2")}, "model_id"), ({"is_full": True}, "is_full")],
)
def test_the_name_of_a_published_run_with_another_request_is_refused(
    lake, output, run_night, change, named
):
    run_night(lake, run_id="tonight")
    before = extractions(output)
    with pytest.raises(ValueError, match=rf"tonight was published with .*\({named} differ\)"):
        run_night(lake, run_id="tonight", **change)
    assert extractions(output).equals(before)
    assert run_night(lake, run_id="tonight")["state"] == "already published"


def test_failed_gate_publishes_nothing_and_keeps_the_work(lake, output, run_night):
    run_night(lake)
    before = extractions(output)
    write_files(lake, products(40))
    strict = small_config(gate={"min_rows": 10, "max_row_change": 0.3})
    with pytest.raises(RunFailedError, match=r"row_change is 0\.556, limit 0\.300") as caught:
        run_night(lake, config=strict, is_full=True)
    assert caught.value.summary["state"] == "failed"
    assert extractions(output).equals(before)
    summary = run_night(lake, is_full=True)  # with the usual limits; nothing is worked again
    assert (summary["rows_worked"], summary["rows_extracted"]) == (0, 40)
    assert summary["run_id"] == caught.value.summary["run_id"]
    assert summary["rows_vanished"] == 50


def test_open_run_of_another_request_is_abandoned(lake, run_night):
    strict = small_config(gate={"min_rows": 10, "max_degraded_rate": 0.0})
    write_file(lake / "part-000.parquet", [product(i, image=None) for i in range(30)])
    with pytest.raises(RunFailedError, match="degraded_rate"):
        run_night(lake, config=strict, run_id="one")
    with pytest.raises(ValueError, match="run one is open with another request"):
        run_night(lake, run_id="one", is_full=True)
    assert run_night(lake, model=DictionarySource(version="2"))["rows_worked"] == 90
    with pytest.raises(ValueError, match="run one was abandoned"):
        run_night(lake, run_id="one")


def test_replay_extracts_quarantined_rows_again(lake, output, run_night):
    rows = [product(200, title=None, description=None), product(201, title="red RAISE")]
    write_file(lake / "odd.parquet", rows)
    summary = run_night(lake)
    assert summary["by_reason"] == {"empty_text": 1, "poison_row": 1}
    assert run_night(lake)["rows_worked"] == 0
    assert run_night(lake, is_replay=True)["rows_worked"] == 2
    assert len(quarantine(output)) == 0


def test_unreadable_files_are_tried_again_every_night(lake, output, run_night):
    (lake / "part-000.parquet").write_bytes(b"")
    assert run_night(lake)["files_unreadable"] == 1
    assert run_night(lake)["files_scanned"] == 1
    assert quarantine(output)["reason"].to_list() == ["unreadable_file"]


def test_trusted_column_spares_the_blobs(tmp_path, run_night):
    config = small_config(trusted_column="price")
    lake = write_files(tmp_path / "in", products(60))
    first = run_night(lake, config=config)
    rows = products(60)
    rows[5] = product(5, price=99.5, title="black wool hat")
    rows[6] = product(6, title="green wool hat")  # price kept: trusted, so not seen
    write_files(lake, rows)
    second = run_night(lake, config=config)
    assert second["rows_worked"] == 1
    assert second["bytes_scanned"] < 0.5 * first["bytes_read"]


def test_input_that_changes_during_the_run_is_planned_again(lake, output, run_night):
    class Changing(DictionarySource):
        """Rewrites an input file when the model is loaded first, that is after the plan."""

        def load(self):
            rows = [product(i, title="black wool cape") for i in range(30, 55)]
            if pq.read_metadata(lake / "part-001.parquet").num_rows == 30:
                write_file(lake / "part-001.parquet", rows)
            return super().load()

    summary = run_night(lake, model=Changing())
    assert summary["num_plans"] == 2
    table = extractions(output)
    assert len(table) == 85
    capes = table.filter(pl.col("values").list.first().struct.field("value") == "black")
    assert len(capes) == 25


def test_a_file_that_changed_behind_its_time_and_size_is_found_out(lake, output, run_night):
    class Sneaky(DictionarySource):
        """Changes a title in place and hides it, once the plan is made."""

        def load(self):
            path = lake / "part-002.parquet"
            before = path.stat()
            content = path.read_bytes()
            assert content.count(b"shirt 77") >= 1
            path.write_bytes(content.replace(b"shirt 77", b"skirt 77"))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            return super().load()

    rows = products(30, start=60)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, lake / "part-002.parquet", compression="none", use_dictionary=False)
    summary = run_night(lake, model=Sneaky())
    assert (summary["num_plans"], summary["rows_extracted"]) == (2, 90)
    again = run_night(lake)
    assert again["rows_worked"] == 0
    assert len(extractions(output)) == 90


def test_a_model_replaced_since_the_plan_is_not_used(lake, output, run_night):
    with pytest.raises(RunFailedError, match="loaded model dictionary-2, expected dictionary-1"):
        run_night(lake, model=DictionarySource(put_in_place="2"))
    assert run_night(lake, model=DictionarySource("2"))["rows_extracted"] == 90
    assert set(extractions(output)["model_id"]) == {"dictionary-2"}


def test_plan_only_changes_nothing(lake, output):
    job = NightlyJob(DictionarySource(), output, small_config(estimate={"cost_per_hour": 3.0}))
    plan = job.plan_only(NightlyRequest((str(lake),), limit=50))
    assert (plan["rows_in"], plan["rows_to_extract"], plan["deferred"]) == (90, 50, 40)
    assert plan["bytes_to_read"] > 0
    assert plan["estimated_seconds"] == 61.0
    assert plan["estimated_cost"] == pytest.approx(61 / 3600 * 3, abs=1e-3)
    assert not output.join("extractions").exists()


def test_inputs_of_several_forms_give_one_table(tmp_path, output, run_night):
    hive = tmp_path / "hive"
    no_category = SCHEMA.remove(SCHEMA.get_field_index("category"))
    write_file(hive / "category=shirts" / "a.parquet", products(10), schema=no_category)
    delta = tmp_path / "delta"
    deltalake.write_deltalake(str(delta), pa.Table.from_pylist(products(10, start=10), SCHEMA))
    deltalake.write_deltalake(
        str(delta), pa.Table.from_pylist(products(10, start=20), SCHEMA), mode="append"
    )
    pictures = tmp_path / "csv" / "pictures"
    pictures.mkdir(parents=True)
    lines = ["product_id,title,description,image_uri,category"]
    for row in products(10, start=30):
        (pictures / f"{row['product_id']}.jpg").write_bytes(row["image"])
        uri = f"pictures/{row['product_id']}.jpg"
        lines.append(f"{row['product_id']},{row['title']},{row['description'] or ''},{uri},shirts")
    (tmp_path / "csv" / "more.csv").write_text("\n".join(lines))
    single = write_file(tmp_path / "single.parquet", products(10, start=40))
    summary = run_night(hive, delta, tmp_path / "csv", single)
    assert summary["by_status"] == {"ok": 50}
    run_night(write_files(tmp_path / "plain", products(50)), output=tmp_path / "plain-out")
    other = extractions(Storage.of(tmp_path / "plain-out"))
    columns = ["product_id", "values", "range"]
    assert extractions(output).select(columns).equals(other.select(columns))


def test_reports_are_written(lake, output, run_night):
    run_night(lake, run_id="r1")
    folder = output.join("_runs", "r1")
    assert "| rows_extracted | 90 |" in folder.join("report.md").read_bytes().decode()
    metrics = folder.join("metrics.prom").read_bytes().decode()
    assert "ulsdram_nightly_rows_in 90\n" in metrics
    assert 'ulsdram_nightly_rows_by_status{status="ok"} 90' in metrics
    assert metrics.endswith("ulsdram_nightly_success 1\n")


def test_a_failure_calls_the_webhook_and_is_reported(lake, output, run_night):
    heard = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.handle_request, daemon=True).start()
    config = small_config(
        webhook=f"http://127.0.0.1:{server.server_address[1]}/hook",
        gate={"min_rows": 10, "max_null_rate": 0.0, "max_degraded_rate": 0.0},
    )
    write_file(lake / "odd.parquet", [product(301, title="nothing of the kind")])
    with pytest.raises(RunFailedError):
        run_night(lake, config=config, run_id="bad")
    server.server_close()
    assert heard[0]["summary"]["state"] == "failed"
    assert "null_rate" in heard[0]["text"]
    report = output.join("_runs", "bad", "report.md").read_bytes().decode()
    assert "| null_rate |" in report
    assert "| failed |" in report
    metrics = output.join("_runs", "bad", "metrics.prom").read_bytes().decode()
    assert metrics.endswith("ulsdram_nightly_success 0\n")


def test_a_webhook_that_does_not_answer_changes_nothing(lake, run_night):
    config = small_config(
        webhook="http://127.0.0.1:9/", gate={"min_rows": 10, "max_row_change": 0.1}
    )
    run_night(lake)
    write_files(lake, products(40))
    with pytest.raises(RunFailedError, match="row_change"):
        run_night(lake, config=config)


def test_same_content_whatever_the_sizes(lake, output, run_night, tmp_path):
    run_night(lake)
    sizes = small_config(chunks={"rows": 7, "batch_rows": 3, "row_groups": 2})
    run_night(lake, output=tmp_path / "other", config=sizes)
    assert_same_tables(Storage.of(tmp_path / "other"), output)
