"""Metrics of a run: the text format, and what a push gateway is told."""

import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from run_job import small_config
from shop_catalogue import product, products, write_file, write_files

from pipelines.errors import RunFailedError
from pipelines.lake.snapshot import StoredFile
from pipelines.nightly.report import markdown, prometheus_text
from pipelines.nightly.summary import write_numbers
from pipelines.nightly.table.publish import Rewritten

CHECK = {"name": "quarantine_rate", "found": 0.1, "limit": 0.05, "verdict": "failed", "note": ""}


def samples(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(ulsdram_\S+) (\S+)$", text, flags=re.MULTILINE))


def test_a_refused_run_names_its_checks_but_no_success_time():
    text = prometheus_text({"state": "failed", "gate": [CHECK], "rows_in": 7}, finished_at=12.5)
    found = samples(text)
    assert found['ulsdram_nightly_gate_passed{check="quarantine_rate"}'] == "0"
    assert found['ulsdram_nightly_gate_limit{check="quarantine_rate"}'] == "0.05"
    assert found["ulsdram_nightly_finished_timestamp_seconds"] == "12.5"
    assert "last_success" not in text


def test_what_was_not_judged_has_neither_passed_nor_failed():
    check = {**CHECK, "verdict": "not judged", "note": "3 rows are too few"}
    summary = {"state": "published", "gate": [check], "run_id": "r"}
    found = samples(prometheus_text(summary, finished_at=1))
    assert found['ulsdram_nightly_gate_judged{check="quarantine_rate"}'] == "0"
    assert 'ulsdram_nightly_gate_passed{check="quarantine_rate"}' not in found
    assert "| not judged | 3 rows are too few |" in markdown(summary)


def test_write_amplification_counts_rows_as_its_text_says():
    files = (StoredFile("a", 1), StoredFile("b", 10**9))
    done = Rewritten(0, (), files, (60, 40), rows_changed=3, rows_vanished=1)
    numbers = write_numbers([done])
    text = prometheus_text({"state": "published", **numbers}, finished_at=1)
    assert samples(text)["ulsdram_nightly_write_amplification"] == "25.0"
    assert "write_amplification Rows written by rows that changed or vanished." in text


def test_labels_are_escaped():
    text = prometheus_text(
        {"state": "published", "gate": [{**CHECK, "name": 'a"\\\n'}]}, finished_at=1
    )
    assert r'{check="a\"\\\n"}' in text


def test_an_attribute_name_does_not_break_the_table_of_checks():
    check = {**CHECK, "name": "drift:a|<b>"}
    text = markdown({"run_id": "r", "state": "failed", "gate": [check]})
    assert r"| drift:a\|&lt;b> | 0.100 | 0.050 | FAILED |  |" in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_reads_the_text():
    counts = {"by_status": {"ok": 3}, "by_reason": {"no_picture": 1}}
    text = prometheus_text(
        {"state": "published", "gate": [CHECK], "seconds": 1.5, **counts}, finished_at=1e9
    )
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Gateway(BaseHTTPRequestHandler):
    heard: list = []  # noqa: RUF012 - emptied by the fixture

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.heard.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def gateway():
    Gateway.heard.clear()
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_good_and_bad_nights_reach_the_gateway(gateway, run_night, tmp_path):
    lake = write_files(tmp_path / "in", products(30))
    gate = {"min_rows": 10, "max_null_rate": 0.0}
    config = small_config(push_gateway=gateway, gate={**gate, "max_row_change": 9.0})
    run_night(lake, config=config)
    write_file(lake / "odd.parquet", [product(n, title="nothing") for n in range(50, 70)])
    with pytest.raises(RunFailedError):
        run_night(lake, config=config)
    (path, good), (_, bad) = Gateway.heard
    assert path == "/metrics/job/ulsdram_nightly/table/out"
    assert samples(good)["ulsdram_nightly_success"] == "1"
    assert samples(bad)['ulsdram_nightly_gate_passed{check="null_rate"}'] == "0"


def test_a_gateway_that_does_not_answer_changes_nothing(run_night, tmp_path, caplog):
    lake = write_files(tmp_path / "in", products(10))
    config = small_config(push_gateway="http://user:hunter22@127.0.0.1:9/")
    assert run_night(lake, config=config)["state"] == "published"
    assert "could not be told: ConnectionRefusedError" in caplog.text
    assert "hunter22" not in caplog.text
