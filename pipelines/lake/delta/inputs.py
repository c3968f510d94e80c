"""The files of a Delta table as input: one version, with the rows that deletion vectors hide."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.lake.storage import Storage

_DELETION_VECTORS = "deletionVectors"
# what a reader has to know to see the right rows: anything else may change what a file means
_READER_FEATURES = frozenset(
    {
        _DELETION_VECTORS,
        "columnMapping",  # known, and refused where it is on
        "timestampNtz",
        "typeWidening",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)
_MAPPING_KEY = "delta.columnMapping.mode"
_REWRITE = "write a copy of the table without it (CREATE TABLE ... AS SELECT) and name that one"


@dataclass(frozen=True, slots=True)
class DeltaFile:
    """An active file; `hidden` are the positions of rows that are deleted."""

    uri: str
    size: int
    partitions: tuple[tuple[str, str | None], ...]
    hidden: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def open_input(place: Storage) -> DeltaTable:
    """Open it at its newest version; ValueError: its rows cannot be told from its files."""
    try:
        delta = DeltaTable(place.delta_uri, storage_options=place.delta_options or None)
    except DeltaError as error:
        if "Unsupported" not in str(error) and "olumn mapping" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"found Delta table {place.uri}: {reason}; {_REWRITE}") from error
    protocol = delta.protocol()
    unknown = sorted(set(protocol.reader_features or ()) - _READER_FEATURES)
    if unknown:
        raise ValueError(
            f"found Delta table {place.uri} with reader features {', '.join(unknown)}, expected "
            f"no other than {', '.join(sorted(_READER_FEATURES))}; {_REWRITE}"
        )
    mapping = delta.metadata().configuration.get(_MAPPING_KEY) or "none"
    if mapping != "none" and protocol.min_reader_version > 1:
        raise ValueError(
            f"found Delta table {place.uri} with column mapping ({mapping}): its files name their "
            f"columns otherwise; {_REWRITE}"
        )
    return delta


def list_delta(delta: DeltaTable, place: Storage) -> list[DeltaFile]:
    """Return the files of the version that `delta` stands at, by path."""
    hidden = _hidden_rows(delta, place)
    names = delta.metadata().partition_columns
    rows = delta.get_add_actions(flatten=True)
    actions = {name: rows[name].to_pylist() for name in rows.schema.names}
    files = []
    for i, path in enumerate(actions["path"]):
        values = ((name, actions[f"partition.{name}"][i]) for name in names)
        partitions = tuple((name, None if value is None else str(value)) for name, value in values)
        uri = path if "://" in path else place.join(unquote(path)).uri
        rows_hidden = hidden.pop(_path(uri, place.options), np.zeros(0, np.int64))
        files.append(DeltaFile(uri, int(actions["size_bytes"][i]), partitions, rows_hidden))
    if hidden:
        raise ValueError(
            f"found deletion vectors of files that Delta table {place.uri} does not list "
            f"({', '.join(sorted(hidden))}); rewrite it (REORG TABLE ... APPLY (PURGE))"
        )
    return sorted(files, key=lambda file: file.uri)


def _hidden_rows(delta: DeltaTable, place: Storage) -> dict[str, np.ndarray]:
    """Return path of a file -> positions of its deleted rows."""
    if _DELETION_VECTORS not in (delta.protocol().reader_features or ()):
        return {}
    found: Any = pa.table(delta.deletion_vectors().read_all())
    return {
        _path(uri.as_py(), place.options): np.flatnonzero(
            ~kept.values.to_numpy(zero_copy_only=False).astype(bool)
        )
        for uri, kept in zip(found["filepath"], found["selection_vector"], strict=True)
    }


def _path(uri: str, options: Mapping[str, str]) -> str:
    return unquote(Storage.of(uri, options).path)
