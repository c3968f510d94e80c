"""What tests of several packages share: one Ray cluster, one S3 server on loopback."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One cluster with 4 logical CPUs for all tests marked `ray`."""
    import ray

    # socket paths below the folder must stay short; workers must find our packages
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))])
    )
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
        object_store_memory=300_000_000,
        # By default workers yield to everything else, here to the tests in the other process.
        _system_config={"worker_niceness": 0},
        _temp_dir=folder,
    )
    yield
    _shut_down()


def _shut_down() -> None:
    """Leave the cluster; closing a driver's subscription has been seen to wait for ever."""
    import ray
    from ray._private import worker

    node = worker._global_node
    closing = threading.Thread(target=ray.shutdown, daemon=True)
    closing.start()
    closing.join(30)
    if closing.is_alive() and node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        closing.join(30)


@dataclass(frozen=True)
class S3Server:
    """A real S3 server on loopback with one bucket."""

    endpoint: str
    bucket: str

    @property
    def options(self) -> dict[str, str]:
        """Storage options for it."""
        return {
            "endpoint_url": self.endpoint,
            "access_key_id": "test",
            "secret_access_key": "test",
            "region": "us-east-1",
        }

    def uri(self, name: str) -> str:
        """A place in the bucket."""
        return f"s3://{self.bucket}/{name}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A moto server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(endpoint)
        server = S3Server(endpoint, "lake")
        import s3fs

        # without a region: the server refuses us-east-1 as a location constraint
        fs = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=endpoint)
        fs.mkdir(server.bucket)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(endpoint: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
        except OSError:
            time.sleep(0.25)
        else:
            return
    raise RuntimeError("the S3 server did not start")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what needs Ray in one process: there is one cluster, and each start costs 10 s."""
    for item in items:
        if item.get_closest_marker("ray") or "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))
