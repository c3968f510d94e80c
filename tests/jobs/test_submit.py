"""The path of a user with MAE's files: prepare, train through `ray job submit`, evaluate."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import ray
from small_run import SMALL

from ulsdram_core.demo import DemoConfig, generate

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A local head with its dashboard on loopback; yields its environment."""
    folder = tmp_path_factory.mktemp("h")
    gcs, dashboard = free_port(), free_port()
    environment = {
        **os.environ,
        "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{gcs}",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
    }
    command = [RAY, "start", "--head", "--port", str(gcs)]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
    command += ["--num-cpus", "4", "--block", "--disable-usage-stats"]
    command += ["--object-store-memory", "200000000"]
    # The defaults of these are fixed numbers: a second cluster on the machine would lack its agent.
    for name in ("dashboard-agent-listen", "dashboard-agent-grpc", "ray-client-server"):
        command += [f"--{name}-port", str(free_port())]
    started = {key: value for key, value in environment.items() if key != "RAY_ADDRESS"}
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(command, env=started, cwd=ROOT, stdout=log, stderr=log)
    try:
        _wait_for_dashboard(dashboard, process)
        yield environment
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_dashboard(port: int, process: subprocess.Popen) -> None:

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head stopped"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers: without a token, Ray refuses, which is fine here
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("the dashboard did not come up")


def write_mae(folder: Path) -> None:
    """MAE's layout, from demo products: JSON lists per split and a picture folder."""
    pictures = folder / "mumie-img"
    pictures.mkdir(parents=True)
    splits = {"train": (0, 60), "val": (60, 75), "test": (75, 95)}
    products = list(generate(DemoConfig(num_products=95, picture_size=32, ambiguous=0.0)))
    for name, (start, end) in splits.items():
        items = []
        for product in products[start:end]:
            if product.picture is not None:
                (pictures / f"{product.product_id}.jpg").write_bytes(product.picture)
            items.append(
                {
                    "title": product.title,
                    "text": product.description,
                    "clean_title": product.title.lower(),
                    "clean_text": product.description.lower(),
                    "images": [f"{product.product_id}.jpg"] if product.picture else ["lost.jpg"],
                    "specs": dict(product.specs),
                    "diffbotUri": product.product_id,
                }
            )
        (folder / name).mkdir()
        (folder / name / "part-0.json").write_text(json.dumps(items), encoding="utf-8")


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def submit(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """`ray job submit`, waiting for the job agent, which comes up after the dashboard."""
    for _ in range(20):
        found = run([RAY, "job", "submit", *arguments], environment)
        if "No available agent" not in found.stderr:
            break
        time.sleep(5)
    return found


def test_mae_files_become_a_scored_model_through_job_submission(head, tmp_path):
    write_mae(tmp_path / "mae")
    data, out = tmp_path / "data", tmp_path / "out"
    prepared = run(
        [sys.executable, "jobs/prepare.py", "mae", "--in", tmp_path / "mae", "--out", data], head
    )
    assert prepared.returncode == 0, prepared.stderr
    job = ["python", "jobs/train_mae.py", "--data", data, "--out", out, *SMALL]
    submitted = submit(["--working-dir", ".", "--", *job], head)
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    assert (out / "model" / "model.safetensors").exists()
    scored = run(
        [sys.executable, "jobs/evaluate.py", "--model", out / "model", "--data", data], head
    )
    assert scored.returncode == 0, scored.stderr
    summary = json.loads(scored.stdout.splitlines()[-1])
    assert summary["num_products"] == 20
    assert 0 <= summary["tag"]["f1"] <= 1


def test_a_script_submitted_by_its_path_reports_failure(head, tmp_path):
    job = ["jobs/train_mae.py", "--data", tmp_path / "none", "--out", tmp_path / "out"]
    submitted = submit(["--", *job], head)
    assert submitted.returncode == 1
    assert "found no Parquet files" in submitted.stdout + submitted.stderr
