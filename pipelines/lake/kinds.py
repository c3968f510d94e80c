"""What kind of folder a job wrote: a job neither writes into another kind's nor into its input.

The marker is `_ulsdram.json` (readers skip such names). Folders of earlier releases have none; they
are told by what lies in them and get theirs with the next write.
"""

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path

from pipelines.lake.documents import read_json, write_json
from pipelines.lake.errors import StorageError
from pipelines.lake.storage import Storage

MARKER = "_ulsdram.json"
TABLES, RUN, SNAPSHOTS, BENCHMARK = "result tables", "training run", "snapshots", "benchmark"
DEMO = "demo"
MODEL, PREPARED, DELTA, DATA = "model", "prepared products", "Delta table", "data files"
# what lies in them is deleted, replaced or read as theirs by the job that they belong to
_CLOSED = frozenset({TABLES, SNAPSHOTS, MODEL, PREPARED, DELTA})
_DATA_ENDINGS = (".parquet", ".parq", ".pq", ".csv", ".csv.gz", ".jsonl")


def claim(place: Storage, kind: str, *, option: str = "--out") -> None:
    """Mark the folder as this kind's; ValueError where it is another's or a file."""
    check_kind(place, kind, option=option)
    if MARKER not in place.names():
        write_json(place.join(MARKER), {"kind": kind})


def check_kind(place: Storage, kind: str, *, option: str = "--out") -> None:
    """Refuse a folder of another kind, and one below a folder that a job keeps for itself."""
    _check_above(place, option)
    if place.exists() and not place.is_folder():
        raise ValueError(f"found a file at {option} {place.uri}, expected a folder or nothing")
    found = kind_of(place)
    if found not in (None, kind):
        raise ValueError(
            f"found {option} {place.uri} to be a folder of {found}, expected one of {kind} or "
            "nothing; name another folder"
        )


def check_file(place: Storage, *inputs: Storage, option: str = "--out") -> None:
    """Refuse a file's place that is a folder, belongs to another job, or is or is in an input."""
    parents = Path(place.path).parents if place.is_local else ()
    if place.is_folder() or any(parent.is_file() for parent in parents):
        raise ValueError(
            f"found {option} {place.uri} to be a folder or below a file, expected a file's place"
        )
    _check_above(place, option)
    for source in inputs:
        check_apart(source, place, read="the input", put=option)


def _check_above(place: Storage, option: str) -> None:
    for folder in _above(place):
        kind = _marked_kind(folder)
        if kind in _CLOSED:
            raise ValueError(
                f"found {option} {place.uri} to lie in {folder.uri}, a folder of {kind}; name a "
                "place outside of it"
            )


def _above(place: Storage) -> Iterator[Storage]:
    """Yield the folders that a place lies in, up to its bucket."""
    if place.is_local:
        yield from (Storage(str(parent)) for parent in Path(os.path.realpath(place.path)).parents)
        return
    scheme, _, path = place.uri.partition("://")
    parts = path.split("/")
    for end in range(len(parts) - 1, 0, -1):
        yield Storage(f"{scheme}://{'/'.join(parts[:end])}", place.options)


def _marked_kind(folder: Storage) -> str | None:
    """Return the kind that a folder says itself; None also where nobody may look."""
    if folder.is_local and Path(folder.path, "_delta_log").is_dir():
        return DELTA
    try:
        marker = read_json(folder.join(MARKER))
    except (PermissionError, StorageError):  # rights may begin at the place itself
        return None
    return None if marker is None else str(marker.get("kind"))


def kind_of(place: Storage) -> str | None:
    """Return the kind of a folder; None where nothing is known of it."""
    marker = read_json(place.join(MARKER))
    if marker is not None:
        return str(marker.get("kind"))
    names = set(place.names())
    if "_delta_log" in names:
        return DELTA
    if {"config.json", "model.safetensors"} <= names:
        return MODEL
    if names & {"extractions", "_runs"}:
        return TABLES
    if "metrics.jsonl" in names or {"model", "_start"} & names:
        return RUN
    if {"train", "report.json"} <= names:
        return PREPARED
    if "latest.json" in names:
        return SNAPSHOTS
    return DATA if any(name.lower().endswith(_DATA_ENDINGS) for name in names) else None


def check_apart(
    source: Storage, target: Storage, *, read: str = "--in", put: str = "--out"
) -> None:
    """ValueError where what is read and what is written are one folder or lie in one another."""
    inner, outer = _place(source), _place(target)
    if inner.startswith(outer) or outer.startswith(inner):
        raise ValueError(
            f"found {put} {target.uri} and {read} {source.uri} in one another; "
            "name a folder apart from the input"
        )


def _place(place: Storage) -> str:
    """Return one spelling of a place: links followed, `..` and doubled slashes gone, one scheme."""
    if place.is_local:
        return os.path.realpath(place.path).rstrip("/") + "/"
    path = posixpath.normpath("/" + place.path.lstrip("/"))
    return f"{place.scheme}:/{path}".rstrip("/") + "/"
