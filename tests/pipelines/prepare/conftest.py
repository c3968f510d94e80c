from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.shards import InputFile, Shard


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
        return Shard(0, InputFile(path.name, str(path), size, split), 0, size)

    return make


@pytest.fixture
def write_lines():
    def write(path: Path, rows: list) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
