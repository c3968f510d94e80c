"""A gateway or webhook that misbehaves neither holds up a night nor hides why it failed."""

import io
import socket
import threading
import time

import pytest
from run_job import small_config
from shop_catalogue import product, products, write_files

from pipelines.errors import RunFailedError
from pipelines.nightly.monitoring import call_webhook, push_metrics

ANSWERS = {
    "no HTTP": b"220 smtp ready\r\n\r\n",
    "nothing": b"",
    "a status that is no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    "an endless line": b"HTTP/1.1 200 " + b"x" * 100_000,
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a redirect to a file": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    "a redirect to nonsense": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
    "a server error": b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
}


@pytest.fixture
def answering():
    """answering(data, pause) -> address of a server that sends data byte by byte or at once."""
    listeners = []

    def serve(data: bytes, pause: float = 0.0) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=_answer, args=(listener, data, pause), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/secretpath"

    yield serve
    for listener in listeners:
        listener.close()


def _answer(listener, data, pause):
    while True:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for part in [bytes([b]) for b in data] if pause else [data]:
                    connection.sendall(part)
                    time.sleep(pause)
        except OSError:
            return


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_any_answer_only_costs_a_line_in_the_log(answering, answer, caplog):
    address = answering(answer)
    push_metrics(address, "shop", "x 1\n", seconds=0.5)
    call_webhook(address, {"error": "gate"}, seconds=0.5)
    assert "secretpath" not in caplog.text


def test_a_trickling_answer_is_left_alone(answering, caplog):
    started = time.monotonic()
    push_metrics(answering(b"HTTP/1.1 200 OK\r\n" + b"a" * 1000, 0.1), "shop", "", seconds=0.4)
    assert time.monotonic() - started < 2
    assert "no whole answer in time" in caplog.text


def test_a_night_is_published_and_closed_whatever_the_gateway_says(answering, run_night, tmp_path):
    lake = write_files(tmp_path / "in", products(20))
    config = small_config(push_gateway=answering(ANSWERS["no HTTP"]))
    assert run_night(lake, config=config)["state"] == "published"
    assert not (tmp_path / "out" / "_runs" / "open.json").exists()


def test_a_bad_webhook_does_not_hide_why_a_night_failed(answering, run_night, tmp_path):
    bare = [product(n, title="nothing", description=None) for n in range(20)]
    lake = write_files(tmp_path / "in", bare)
    gate = {"min_rows": 1, "max_null_rate": 0.0}
    config = small_config(webhook=answering(ANSWERS["no HTTP"]), gate=gate)
    with pytest.raises(RunFailedError, match="null_rate"):
        run_night(lake, config=config)


def test_the_user_part_of_a_gateway_becomes_a_header(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda request, **_: seen.append(request) or io.BytesIO()
    )
    push_metrics("http://me:pa%40ss@gateway:9091/", "shop", "", seconds=1)
    (request,) = seen
    assert request.full_url == "http://gateway:9091/metrics/job/ulsdram_nightly/table/shop"
    assert request.get_header("Authorization") == "Basic bWU6cGFAc3M="
