"""Which files make up the input: Parquet and CSV files, folders (hive partitions), Delta tables."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable

from pipelines.lake.storage import Storage, file_version
from pipelines.lake.uris import without_secrets

PARQUET_ENDINGS = (".parquet", ".parq", ".pq")
CSV_ENDINGS = (".csv", ".csv.gz")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file as listed. `version` (etag, or time and inode) changes whenever the file does."""

    uri: str
    size: int
    version: str
    partitions: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_csv(self) -> bool:
        """Whether the file is text that has to be turned into Parquet first."""
        return self.uri.lower().endswith(CSV_ENDINGS)

    @property
    def folder(self) -> str:
        """Where the file lies; addresses of pictures without a scheme are relative to it."""
        return self.uri.rpartition("/")[0]

    def fingerprint(self, *settings: str) -> str:
        """Names what was read from this very content of the file under these settings."""
        parts = (
            without_secrets(self.uri),
            str(self.size),
            self.version,
            repr(self.partitions),
            *settings,
        )
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def list_inputs(uris: Iterable[str], options: Mapping[str, str]) -> list[InputFile]:
    """Every input file once, in the order (input as given, then by path)."""
    found: dict[str, InputFile] = {}
    for uri in uris:
        for file in _list_input(Storage.of(uri, options)):
            found.setdefault(file.uri, file)
    return list(found.values())


def _list_input(place: Storage) -> list[InputFile]:
    if place.uri.lower().endswith(PARQUET_ENDINGS + CSV_ENDINGS) and not place.is_folder():
        return [_listed_file(place)]
    if place.join("_delta_log").exists():
        return _list_delta(place)
    if not place.is_folder():
        raise ValueError(
            f"found nothing at {place.uri}, expected a folder, a Delta table or a file that ends "
            f"in one of {', '.join(PARQUET_ENDINGS + CSV_ENDINGS)}; check the path"
        )
    files = _list_folder(place)
    if not files:
        raise ValueError(
            f"found no Parquet or CSV file below {place.uri}, expected a products table (an empty "
            "one would mark every product as vanished); check the path"
        )
    return files


def _listed_file(place: Storage) -> InputFile:
    try:
        info = place.info()
    except FileNotFoundError as error:
        raise ValueError(f"found nothing at {place.uri}; check the path") from error
    return InputFile(place.uri, int(info["size"]), file_version(info))


def _list_folder(place: Storage) -> list[InputFile]:
    root = place.path.rstrip("/")
    listing: dict[str, Any] = place.fs.find(root, detail=True)
    files = []
    for path, info in sorted(listing.items()):
        inner = path[len(root) :].lstrip("/")
        if inner.lower().endswith(PARQUET_ENDINGS + CSV_ENDINGS) and not _is_hidden(inner):
            uri = place.join(inner).uri
            files.append(InputFile(uri, int(info["size"]), file_version(info), _partitions(inner)))
    return files


def _list_delta(place: Storage) -> list[InputFile]:
    delta = DeltaTable(place.delta_uri, storage_options=place.delta_options or None)
    if len(delta.deletion_vectors().read_all() if _has_vectors(delta) else ()):
        raise ValueError(
            f"Delta table {place.uri} has deletion vectors, which hide rows of its files; "
            "rewrite it (REORG TABLE ... APPLY (PURGE)) and run again"
        )
    names = delta.metadata().partition_columns
    rows = delta.get_add_actions(flatten=True)
    actions = {name: rows[name].to_pylist() for name in rows.schema.names}
    files = []
    for i, path in enumerate(actions["path"]):
        values = ((name, actions[f"partition.{name}"][i]) for name in names)
        partitions = tuple((name, None if value is None else str(value)) for name, value in values)
        uri = path if "://" in path else place.join(unquote(path)).uri
        files.append(InputFile(uri, int(actions["size_bytes"][i]), "delta", partitions))
    return sorted(files, key=lambda file: file.uri)


def _has_vectors(delta: DeltaTable) -> bool:
    return "deletionVectors" in (delta.protocol().reader_features or [])


def _is_hidden(path: str) -> bool:
    """Whether a part of the path is a name that writers use for what is not data."""
    return any(part.startswith((".", "_")) and "=" not in part for part in path.split("/"))


def _partitions(path: str) -> tuple[tuple[str, str | None], ...]:
    """(name, value) of every `name=value` folder."""
    pairs = (part.partition("=") for part in path.split("/")[:-1] if "=" in part)
    return tuple(
        (name, None if value == _NULL_PARTITION else unquote(value)) for name, _, value in pairs
    )
