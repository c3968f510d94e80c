"""Finished runs: one JSON file each, named by fingerprint, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

from pipelines.lake.storage import Storage

Result = dict[str, Any]


class RunStore:
    """The folder O/runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, fingerprint: str) -> Path:
        """Return where a run's result lies."""
        return self.folder / f"{fingerprint}.json"

    def find(self, fingerprint: str) -> Result | None:
        """Return a finished run's result, or None."""
        path = self.path(fingerprint)
        if not path.exists():
            return None
        try:
            found: Result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); delete it to run it again") from error
        return found

    def put(self, result: Result) -> None:
        """Keep a finished run."""
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        Storage.of(self.path(result["fingerprint"])).write_bytes(f"{text}\n".encode())
