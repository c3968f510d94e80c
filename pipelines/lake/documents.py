"""JSON documents in the lake."""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.lake.errors import StorageError
from pipelines.lake.storage import Storage


def read_json(place: Storage) -> dict[str, Any] | None:
    """Return a JSON object; None when the file is not there."""
    try:
        found = json.loads(place.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StorageError(f"{place.uri} is not JSON: {error}; restore or remove it") from error
    assert isinstance(found, dict)
    return found


def write_json(place: Storage, content: Mapping[str, Any]) -> None:
    """Put a JSON object whole."""
    place.write_bytes(json.dumps(content, ensure_ascii=False, indent=1).encode())
