"""What kind of folder a job wrote: a job neither writes into another kind's nor into its input.

The marker is `_ulsdram.json` (readers skip such names). Folders of earlier releases have none; they
are told by what lies in them and get theirs with the next write.
"""

import os
import posixpath

from pipelines.lake.documents import read_json, write_json
from pipelines.lake.storage import Storage

MARKER = "_ulsdram.json"
TABLES, RUN, SNAPSHOTS, BENCHMARK = "result tables", "training run", "snapshots", "benchmark"
MODEL, PREPARED, DELTA, DATA = "model", "prepared products", "Delta table", "data files"
_DATA_ENDINGS = (".parquet", ".parq", ".pq", ".csv", ".csv.gz", ".jsonl")


def claim(place: Storage, kind: str, *, option: str = "--out") -> None:
    """Mark the folder as this kind's; ValueError where it is another's or a file."""
    check_kind(place, kind, option=option)
    if MARKER not in place.names():
        write_json(place.join(MARKER), {"kind": kind})


def check_kind(place: Storage, kind: str, *, option: str = "--out") -> None:
    """Refuse a folder of another kind, and one below a folder of result tables or a model."""
    if place.exists() and not place.is_folder():
        raise ValueError(f"found a file at {option} {place.uri}, expected a folder or nothing")
    found = kind_of(place)
    if found not in (None, kind):
        raise ValueError(
            f"found {option} {place.uri} to be a folder of {found}, expected one of {kind} or "
            "nothing; name another folder"
        )


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
