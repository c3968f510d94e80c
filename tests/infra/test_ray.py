"""Clusters: the launcher's file, the local script, what is uploaded; a node killed mid-run."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jsonschema
import polars as pl
import pytest
import ray
import yaml
from ray._private.runtime_env.packaging import create_package
from small_run import SMALL

from pipelines.demo.tables import write_products, write_splits
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig, generate

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "ray"
SCRIPT = FOLDER / "local.sh"
RAY = Path(sys.executable).with_name("ray")
CLUSTER = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
_log = logging.getLogger(__name__)


def test_the_launchers_file_fits_rays_own_schema():
    jsonschema.validate(CLUSTER, SCHEMA)
    assert CLUSTER["head_node_type"] in CLUSTER["available_node_types"]


def test_a_misspelt_launcher_field_fails():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**CLUSTER, "max_worker": 3}, SCHEMA)


def test_clusters_ask_for_a_token_and_keep_their_dashboard_on_loopback():
    (head,) = [line for line in CLUSTER["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host 127.0.0.1" in head
    options = " ".join(CLUSTER["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options
    text = SCRIPT.read_text()
    assert "--dashboard-host 127.0.0.1" in text
    assert "RAY_AUTH_MODE=token" in text
    assert "umask 077" in text


def test_the_local_script_is_sound_and_explains_itself():
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "local.sh start" in done.stdout


def test_the_upload_is_the_code_and_small(tmp_path):
    environment = yaml.safe_load((FOLDER / "runtime_env.yaml").read_text())
    assert not any(re.search("KEY|SECRET|TOKEN", name) for name in environment["env_vars"])
    package = tmp_path / "code.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=environment["excludes"])
    assert package.stat().st_size < 3_000_000
    done = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", package], capture_output=True, text=True, check=True
    )
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert any(name.endswith("jobs/recipes/nightly.toml") for name in names)
    assert any(name.endswith("pipelines/normalization/rules.toml") for name in names)
    assert not any("/tests/" in f"/{name}" or ".git/" in name for name in names)


class Local:
    """The cluster of infra/ray/local.sh and what a user types on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"
        drop = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
        self.environment = {k: v for k, v in os.environ.items() if k not in drop}
        self.environment |= {
            "PATH": path,
            "ULSDRAM_RAY_HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",
        }

    def start(self, *, workers: int, cpus: int) -> None:
        self._script("start", str(workers), str(cpus))
        lines = self._script("env").splitlines()
        exports = (line.removeprefix("export ").partition("=") for line in lines)
        self.environment |= {name: value for name, _, value in exports}

    def stop(self) -> None:
        self._script("stop")

    def _script(self, *arguments: str) -> str:
        done = subprocess.run(
            [SCRIPT, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, name: str, *job: object, wait: bool = True) -> subprocess.CompletedProcess:
        command = [RAY, "job", "submit", "--runtime-env", "infra/ray/runtime_env.yaml"]
        command += ["--submission-id", name, *([] if wait else ["--no-wait"]), "--", *job]
        for _ in range(20):
            done = self.call(*command)
            if "No available agent" not in done.stderr:
                break
            time.sleep(5)
        return done

    def call(self, *command: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def status(self, name: str) -> str:
        states = r"\b(PENDING|RUNNING|SUCCEEDED|FAILED|STOPPED)\b"
        done = self.call(RAY, "job", "status", name)
        found = re.findall(states, done.stdout + done.stderr, flags=re.IGNORECASE)
        assert found, done.stdout + done.stderr
        return str(found[-1]).upper()

    def kill_worker(self) -> None:
        """SIGKILL the second node: its raylet, its agents and all workers on it."""
        for pid in descendants(int((self.home / "worker-1.pid").read_text())):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def metrics(self) -> str:
        port = (self.home / "head.metrics").read_text().strip()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    cluster = Local(tmp_path_factory.mktemp("local"))
    started = time.monotonic()
    cluster.start(workers=1, cpus=2)
    _log.info(f"two nodes up after {time.monotonic() - started:.0f} s")
    yield cluster
    cluster.stop()


def rows(table: Path) -> pl.DataFrame:
    """What must not depend on who computed it; scores rounded, as batches differ."""
    value = pl.element().struct
    return (
        pl.read_delta(str(table / "extractions"))
        .sort("product_id")
        .select(
            "product_id", "status", "reason", "input_hash", "model_id",
            pl.col("values").list.eval(value.field("attribute")).alias("attributes"),
            pl.col("values").list.eval(value.field("value")).alias("values"),
            pl.col("values").list.eval(value.field("start")).alias("starts"),
            pl.col("values").list.eval(value.field("confidence").round(3)).alias("confidences"),
        )
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_train_and_nights_on_two_nodes_one_of_which_is_killed(local, tmp_path):
    products = list(generate(DemoConfig(num_products=3000, picture_size=32, ambiguous=0.0)))
    labelled = DemoConfig(num_products=120, picture_size=32, ambiguous=0.0)
    write_splits(labelled, Storage.of(tmp_path / "data"))
    write_products(products, Storage.of(tmp_path / "in" / "products.parquet"))
    run = tmp_path / "run"
    job = ["python", "jobs/train.py", "--data", tmp_path / "data", "--out", run, *SMALL]
    started = time.monotonic()
    trained = local.submit("train-1", *job)
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
    _log.info(f"trained after {time.monotonic() - started:.0f} s")

    again = local.submit("train-1", *job)
    assert again.returncode != 0
    assert "already exists" in again.stdout + again.stderr

    night = ["python", "jobs/extract_catalog.py", "--model", run / "model", "--input"]
    night += [tmp_path / "in", "--set=chunks.part_rows=20", "--set=chunks.rows=50"]
    night += ["--set=chunks.batch_rows=5", "--set=workers.model_workers=4"]
    night += ["--set=workers.decode_workers=2", "--set=num_buckets=4"]
    started = time.monotonic()
    calm = local.submit("night-calm", *night, "--output", tmp_path / "calm")
    assert calm.returncode == 0, calm.stdout[-3000:] + calm.stderr[-3000:]
    _log.info(f"calm night after {time.monotonic() - started:.0f} s")

    wrong = local.submit("night-wrong", *night, "--output", tmp_path / "w", "--limit", "0")
    assert wrong.returncode == 1
    assert "exit code 2" in wrong.stdout + wrong.stderr  # what the CronJob's starter looks for

    token = (local.home / "token").read_text()
    everything = "".join(done.stdout + done.stderr for done in (trained, again, calm, wrong))
    assert token not in everything

    used = set(re.findall(r"\bray_\w+", (ROOT / "infra/monitoring/rules.yaml").read_text()))
    exported = set(re.findall(r"^(ray_\w+)", local.metrics(), flags=re.MULTILINE))
    _log.info(f"not exported before it happens: {sorted(used - exported)}")
    assert {"ray_object_store_memory", "ray_node_disk_usage", "ray_node_disk_free"} <= exported

    local.submit("night-hit", *night, "--output", tmp_path / "hit", wait=False)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "hit").glob("_runs/*/staging*/**/*.parquet")):
        assert time.monotonic() < deadline, "nothing was staged"
        time.sleep(0.02)  # asking for the job's state here would take longer than the night
    local.kill_worker()
    while local.status("night-hit") not in ("SUCCEEDED", "FAILED"):
        assert time.monotonic() < deadline, "the night does not end"
        time.sleep(2)
    log = local.call(RAY, "job", "logs", "night-hit").stdout
    assert local.status("night-hit") == "SUCCEEDED", log[-3000:]
    summary = json.loads(re.findall(r"^\{.*\}$", log, flags=re.MULTILINE)[-1])
    assert summary["worker_failures"] > 0, "the node had nothing to do"
    assert rows(tmp_path / "hit").equals(rows(tmp_path / "calm"))
    reports = b"".join(path.read_bytes() for path in tmp_path.glob("hit/_runs/*/*.*"))
    assert token.encode() not in reports + log.encode()
