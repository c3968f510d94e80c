"""The CronJob's starter against an API server on loopback that plays KubeRay's part."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from kustomize import load_objects
from manifests import check

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "infra" / "k8s" / "base" / "start_rayjob.py"
TEMPLATE = load_objects(ROOT / "infra" / "k8s" / "base" / "rayjob.yaml")[0]
TOKEN = "token-that-nobody-may-see"


def load():
    spec = importlib.util.spec_from_file_location("start_rayjob", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


starter = load()


class Cluster:
    """RayJobs by name; each look at a started one moves it on by one state."""

    def __init__(self, *states: dict, failures: int = 0) -> None:
        self.jobs = {"nightly": TEMPLATE}
        self.states = list(states)
        self.failures = failures
        self.created: list[dict] = []
        self.tokens: set[str] = set()

    def get(self, name: str) -> tuple[int, dict]:
        if self.failures:
            self.failures -= 1
            return 503, {"message": "try later"}
        if name not in self.jobs:
            return 404, {"message": f"rayjobs {name} not found"}
        job = dict(self.jobs[name])
        if name != "nightly":
            job["status"] = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return 200, job

    def post(self, job: dict) -> tuple[int, dict]:
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409, {"message": "already exists"}
        self.jobs[name] = job
        self.created.append(job)
        return 201, job


@pytest.fixture
def serve(tmp_path):
    """serve(cluster) -> run(*arguments): the starter's exit code against it."""
    servers = []
    (tmp_path / "namespace").write_text("ulsdram")
    (tmp_path / "token").write_text(TOKEN + "\n")

    def start(cluster: Cluster):
        class Handler(BaseHTTPRequestHandler):
            def _answer(self, code: int, body: dict) -> None:
                cluster.tokens.add(self.headers["Authorization"])
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                head, _, name = self.path.rpartition("/")
                assert head == "/apis/ray.io/v1/namespaces/ulsdram/rayjobs"
                self._answer(*cluster.get(name))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(*cluster.post(json.loads(body)))

            def log_message(self, *_):
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_address[1]}"
        common = ["--server", address, "--credentials", str(tmp_path), "--poll", "0.01"]
        common += ["--patience", "1", "--template", "nightly", "--name", "nightly-1"]
        return lambda *more: starter.main([*common, *more])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def status(deployment: str, job: str = "", message: str = "") -> dict:
    return {"jobDeploymentStatus": deployment, "jobStatus": job, "message": message}


ENDS = [
    (status("Complete", "SUCCEEDED"), 0),
    (status("Failed", "FAILED", "Job entrypoint command failed with exit code 1, last logs"), 1),
    (status("Failed", "FAILED", "Job entrypoint command failed with exit code 2, last logs"), 2),
    (status("Failed", "FAILED", "Job entrypoint command failed with exit code 137"), 1),
    (status("Failed", "RUNNING", "The RayJob has passed the activeDeadlineSeconds."), 1),
    (status("Complete", "STOPPED"), 1),
    (status("ValidationFailed", "", "spec is invalid"), 2),
]


@pytest.mark.parametrize(("end", "code"), ENDS)
def test_the_exit_code_is_the_jobs(serve, capsys, end, code):
    cluster = Cluster(status("Initializing"), status("Running", "RUNNING"), end)
    assert serve(cluster)("--owner", "uid-1") == code
    printed = capsys.readouterr().out
    assert "nightly-1: started" in printed
    assert "nightly-1: Running RUNNING" in printed
    assert end["message"] in printed
    assert TOKEN not in printed
    assert cluster.tokens == {f"Bearer {TOKEN}"}


def test_what_is_created_is_valid_and_runs(serve):
    cluster = Cluster(status("Complete", "SUCCEEDED"))
    serve(cluster)("--owner", "uid-1")
    (job,) = cluster.created
    check(yaml.safe_load(yaml.safe_dump(job)))
    assert job["spec"]["suspend"] is False
    assert job["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert "status" not in job


def test_started_again_it_waits_for_the_job_that_is_there(serve, capsys):
    cluster = Cluster(status("Running", "RUNNING"), status("Complete", "SUCCEEDED"))
    cluster.jobs["nightly-1"] = TEMPLATE
    assert serve(cluster)() == 0
    assert not cluster.created
    assert "is there already" in capsys.readouterr().out


def test_an_api_server_that_is_away_for_a_moment(serve):
    assert serve(Cluster(status("Complete", "SUCCEEDED"), failures=3))() == 0


def test_an_api_server_that_stays_away(serve, capsys):
    assert serve(Cluster(status("Running"), failures=10**9))() == 1
    assert "answers 503" in capsys.readouterr().out


def test_no_template(serve, capsys):
    cluster = Cluster(status("Running"))
    del cluster.jobs["nightly"]
    assert serve(cluster)() == 1
    assert "not found" in capsys.readouterr().out
