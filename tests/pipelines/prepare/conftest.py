from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from PIL import Image
from s3fs import S3FileSystem

from pipelines.lake.storage import Storage
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.shards import RawFile, Shard


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 32), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def make_config(tmp_path):
    def make(kind: str, source: Path | str, **settings) -> PrepareConfig:
        return PrepareConfig(
            kind=kind, input=str(source), output=str(tmp_path / "prepared"), **settings
        )

    return make


@pytest.fixture
def whole_file():
    """A shard that takes all of one file."""

    def make(path: Path, split: str | None = None) -> Shard:
        size = path.stat().st_size
        return Shard(0, RawFile(path.name, str(path), size, split), 0, size)

    return make


@pytest.fixture
def write_lines():
    def write(path: Path, rows: list) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def s3_bucket(tmp_path) -> Iterator[tuple[S3FileSystem, str, dict[str, str]]]:
    """A filesystem, the URI of an empty bucket on a real server, and its storage options."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    options = {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "access_key_id": "user",
        "secret_access_key": "word",
        "region": "eu-west-1",
    }
    bucket = f"s3://{tmp_path.name.replace('_', '-')}"
    place = Storage.of(bucket, options)
    place.fs.mkdir(place.path)
    yield place.fs, bucket, options
    server.stop()
