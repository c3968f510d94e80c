"""Which files make up the input: Parquet and CSV files, folders (hive partitions), Delta tables."""

import base64
import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import numpy as np

from pipelines.lake.delta.inputs import DeltaFile, list_delta, open_input
from pipelines.lake.digests import digest
from pipelines.lake.storage import Storage, file_version
from pipelines.lake.uris import without_secrets

PARQUET_ENDINGS = (".parquet", ".parq", ".pq")
CSV_ENDINGS = (".csv", ".csv.gz")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_NO_BITS = base64.b64encode(zlib.compress(b"")).decode()
_NO_CHECK = "delta"  # files of a Delta table are never written twice


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file as listed. `version` (etag, or time and inode) changes whenever the file does.

    `problem` says why something with the name of a file cannot be opened as one; `hidden` are the
    rows that a Delta table has deleted without rewriting the file (see `hidden_rows`).
    """

    uri: str
    size: int
    version: str
    partitions: tuple[tuple[str, str | None], ...] = ()
    problem: str = ""
    hidden: str = ""

    @property
    def is_csv(self) -> bool:
        """Whether the file is text that has to be turned into Parquet first."""
        return self.uri.lower().endswith(CSV_ENDINGS)

    @property
    def folder(self) -> str:
        """Where the file lies; addresses of pictures without a scheme are relative to it."""
        return self.uri.rpartition("/")[0]

    def hidden_rows(self) -> np.ndarray:
        """Return ascending positions of the rows that do not count."""
        packed = np.frombuffer(zlib.decompress(base64.b64decode(self.hidden or _NO_BITS)), np.uint8)
        return np.flatnonzero(np.unpackbits(packed))

    def is_described_by(self, info: Mapping[str, Any]) -> bool:
        """Return whether what a storage says of a file fits what was listed."""
        is_same = self.version in (_NO_CHECK, file_version(info))
        return is_same and int(info["size"]) == self.size

    def fingerprint(self, *settings: str) -> str:
        """Name what was read from this very content of the file under these settings."""
        parts = (
            without_secrets(self.uri),
            str(self.size),
            self.version,
            repr(self.partitions),
            *settings,
        )
        parts += (self.hidden,) if self.hidden else ()
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def list_inputs(uris: Iterable[str], options: Mapping[str, str]) -> list[InputFile]:
    """Return every input file once, in the order (input as given, then by path)."""
    found: dict[str, InputFile] = {}
    for uri in uris:
        for file in _list_input(Storage.of(uri, options)):
            found.setdefault(file.uri, file)
    return list(found.values())


def _list_input(place: Storage) -> list[InputFile]:
    if place.uri.lower().endswith(PARQUET_ENDINGS + CSV_ENDINGS) and not place.is_folder():
        return [_listed_file(place)]
    if place.join("_delta_log").exists():
        return [_delta_file(file) for file in list_delta(open_input(place), place)]
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
        return describe_file(place)
    except FileNotFoundError as error:
        raise ValueError(f"found nothing at {place.uri}; check the path") from error


def _list_folder(place: Storage) -> list[InputFile]:
    root = place.path.rstrip("/")
    listing: dict[str, Any] = place.fs.find(root, detail=True, withdirs=place.is_local)
    files = []
    for path, info in sorted(listing.items()):
        inner = path[len(root) :].lstrip("/")
        if not inner.lower().endswith(PARQUET_ENDINGS + CSV_ENDINGS) or _is_hidden(inner):
            continue
        if info["type"] == "directory" and any(other.startswith(path + "/") for other in listing):
            continue  # some writers give the folder of their files such a name
        found = _info_if_there(place.join(inner)) if place.is_local else info
        if found is not None:
            files.append(describe_file(place.join(inner), found, _partitions(inner)))
    return files


def _info_if_there(place: Storage) -> Mapping[str, Any] | None:
    """Return what its storage says of a file; None: it was deleted a moment ago."""
    try:
        return file_info(place)
    except OSError as error:
        if not os.path.islink(place.path):
            if isinstance(error, FileNotFoundError):
                return None
            raise
        return {"size": 0, "type": "link to nothing"}


def describe_file(
    place: Storage,
    info: Mapping[str, Any] | None = None,
    partitions: tuple[tuple[str, str | None], ...] = (),
) -> InputFile:
    """Return a file as its storage describes it (now, unless `info` is given)."""
    info = info or file_info(place)
    kind = info.get("type", "file")
    if kind == "file":
        return InputFile(place.uri, int(info["size"]), file_version(info), partitions)
    return InputFile(place.uri, 0, "", partitions, problem=f"found a {kind}, expected a file")


def file_info(place: Storage) -> dict[str, Any]:
    """Return what the storage says of a file now; of a link, what it points at."""
    if not place.is_local:
        return place.info()
    found = os.stat(place.path)
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "pipe"))
    kind = next((name for is_kind, name in kinds if is_kind(found.st_mode)), "device")
    return {"size": found.st_size, "mtime": found.st_mtime, "ino": found.st_ino, "type": kind}


def _delta_file(file: DeltaFile) -> InputFile:
    return with_hidden(InputFile(file.uri, file.size, _NO_CHECK, file.partitions), file.hidden)


def with_hidden(file: InputFile, rows: np.ndarray) -> InputFile:
    """Return the same file without some rows (ascending positions)."""
    return replace(file, hidden=_packed(rows)) if len(rows) else file


def listing_fingerprint(files: Sequence[InputFile]) -> str:
    """Return what changes whenever the listing does."""
    return digest([file.fingerprint().encode() for file in files]).hex()


def _packed(rows: np.ndarray) -> str:
    """Return positions as text that a plan can hold: two million take a few hundred KB at most."""
    bits = np.zeros(int(rows[-1]) + 1, bool)
    bits[rows] = True
    return base64.b64encode(zlib.compress(np.packbits(bits).tobytes())).decode()


def _is_hidden(path: str) -> bool:
    """Return whether a part of the path is a name that writers use for what is not data."""
    return any(part.startswith((".", "_")) and "=" not in part for part in path.split("/"))


def _partitions(path: str) -> tuple[tuple[str, str | None], ...]:
    """Return (name, value) of every `name=value` folder."""
    pairs = (part.partition("=") for part in path.split("/")[:-1] if "=" in part)
    return tuple(
        (name, None if value == _NULL_PARTITION else unquote(value)) for name, _, value in pairs
    )
