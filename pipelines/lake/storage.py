"""One resolver from a URI and options to fsspec, pyarrow, Delta Lake and polars.

Every URI the system touches passes through `Storage.of`. Options use one set of names per cloud
(`endpoint_url`, `access_key_id`, ... see `options.py`); what is not given comes from the usual
environment variables of that cloud. Options never appear in messages or in `repr`.
"""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow.fs as pafs

from pipelines.lake.errors import StorageError, UnreachableError
from pipelines.lake.options import (
    LOCAL_SCHEMES,
    OPTION_NAMES,
    canonical_scheme,
    fsspec_options,
    own_options,
)
from ulsdram_core.errors import UlsdramError

# request errors of the cloud clients that fsspec passes on as they are
_CLIENT_MODULES = frozenset({"aiohttp", "azure", "botocore", "gcsfs", "google", "requests"})
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "abfss": "adlfs"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Storage:
    """One place in some storage: a file or a folder; cheap to copy and safe to pickle."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(uri: "str | Path | Storage", options: Mapping[str, str] | None = None) -> "Storage":
        """Normalise a URI or a local path; options of other schemes are left aside."""
        if isinstance(uri, Storage):
            return uri
        text = str(uri)
        if not text:
            raise StorageError("found an empty path, expected a local path or a URI; name one")
        scheme = _scheme(text)
        if scheme in LOCAL_SCHEMES:
            return Storage(str(Path(_local_path(text)).expanduser().absolute()))
        return Storage(text.rstrip("/"), own_options(scheme, options or {}))

    @property
    def scheme(self) -> str:
        """Canonical scheme: "file", "s3", "gs", "abfss", ..."""
        return canonical_scheme(_scheme(self.uri))

    @property
    def is_local(self) -> bool:
        """Whether this is a path on this machine."""
        return self.scheme == "file"

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1]

    @property
    def fs(self) -> Any:
        """The fsspec filesystem (fsspec keeps one instance per set of options)."""
        if self.is_local:
            return fsspec.filesystem("file")
        with _explained(self):
            options = fsspec_options(self.scheme, self.options)
            return fsspec.filesystem(_scheme(self.uri), **options)

    @property
    def path(self) -> str:
        """The path inside `fs` and inside `arrow`."""
        return self.uri if self.is_local else str(self.fs._strip_protocol(self.uri))

    @property
    def arrow(self) -> pafs.FileSystem:
        """The pyarrow filesystem for `path`."""
        if self.is_local:
            return pafs.LocalFileSystem()
        return pafs.PyFileSystem(pafs.FSSpecHandler(self.fs))

    @property
    def delta_uri(self) -> str:
        """The address for deltalake; its library decodes percent signs in half of its calls."""
        if "%" in self.uri:
            raise StorageError(
                f"found a percent sign in {self.uri}, which Delta Lake tables cannot lie below; "
                "rename the folder"
            )
        return self.uri

    @property
    def delta_options(self) -> dict[str, str]:
        """Options for deltalake and polars (the object_store names)."""
        names = OPTION_NAMES.get(self.scheme, {})
        options = {names[key][1]: value for key, value in self.options.items() if key in names}
        if self.scheme == "s3":
            endpoint = options.get("aws_endpoint_url") or os.environ.get("AWS_ENDPOINT_URL", "")
            if endpoint:
                options["aws_endpoint_url"] = endpoint
            if endpoint.startswith("http://"):
                options["aws_allow_http"] = "true"
        return options

    @property
    def polars_options(self) -> dict[str, str]:
        """Options for `pl.scan_parquet` and `pl.scan_delta`."""
        return self.delta_options

    def join(self, *parts: str) -> "Storage":
        """Return the place below this one."""
        tail = "/".join(part.strip("/") for part in parts if part)
        return Storage(f"{self.uri.rstrip('/')}/{tail}", self.options) if tail else self

    def sibling(self, path: str) -> "Storage":
        """Return the place in the same filesystem that a listing named `path`."""
        return Storage(path if self.is_local else self.fs.unstrip_protocol(path), self.options)

    def exists(self) -> bool:
        """Return whether a file or folder is here."""
        with _explained(self):
            return bool(self.fs.exists(self.path))

    def is_folder(self) -> bool:
        """Return whether a folder (or a prefix with objects below it) is here."""
        with _explained(self):
            return bool(self.fs.isdir(self.path))

    def info(self) -> dict[str, Any]:
        """Return what the filesystem says of this file: size, and etag or mtime."""
        return dict(self.fs.info(self.path))

    def names(self) -> list[str]:
        """Return names of the direct children, sorted; empty when there is no such folder."""
        try:
            with _explained(self):
                found = self.fs.ls(self.path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(item).rstrip("/").rsplit("/", 1)[-1] for item in found}
        return sorted(name for name in names if name and not name.endswith(".tmp"))

    def files(self) -> dict[str, dict[str, Any]]:
        """Return what the filesystem says of every file below this folder, by path in order."""
        try:
            with _explained(self):
                found: dict[str, dict[str, Any]] = self.fs.find(self.path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return dict(sorted(found.items()))

    def read_bytes(self) -> bytes:
        """Return the whole file."""
        return bytes(self.fs.cat_file(self.path))

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file so that a reader sees the old or the new content, never a part."""
        if not self.is_local:
            self.fs.pipe_file(self.path, data)
            return
        temporary = _write_temporary(Path(self.path), data)
        os.replace(temporary, self.path)

    def write_if_absent(self, data: bytes) -> bool:
        """Create the file unless it is there already; True when `data` is what is stored now.

        `data` should name its writer: a put that succeeded but whose answer was lost is then
        recognised on retry.
        """
        if self.is_local:
            return self._link_if_absent(data)
        try:
            self.fs.pipe_file(self.path, data, mode="create")
        except FileExistsError:
            return self.read_bytes() == data
        except OSError as error:
            if not _is_precondition_failure(error):
                raise
            return self.read_bytes() == data
        return True

    def _link_if_absent(self, data: bytes) -> bool:
        temporary = _write_temporary(Path(self.path), data)
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            return self.read_bytes() == data
        finally:
            temporary.unlink()
        return True

    def make_folder(self) -> None:
        """Create the folder where the storage has such a thing."""
        if self.is_local:
            Path(self.path).mkdir(parents=True, exist_ok=True)

    def delete(self) -> None:
        """Remove the file, or the folder with all below it; nothing there is fine."""
        if self.is_local:
            path = Path(self.path)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            return
        found = list(self.files())
        # `rm` takes a name for a pattern: t[12] would delete t1.
        odd = [name for name in found if has_magic(name)]
        for name in odd:
            self.fs.rm_file(name)
        if plain := [name for name in found if not has_magic(name)]:
            self.fs.rm(plain)

    def copy_to(self, target: "Storage") -> None:
        """Copy the file, or all files below this folder, to another place in the same storage."""
        root = self.path.rstrip("/")
        copies = {path: target.path + path.removeprefix(root) for path in self.files()}
        # Of two lists no name is taken for a pattern.
        self.fs.copy(list(copies), list(copies.values()))

    @contextmanager
    def local_copy(self) -> Iterator[Path]:
        """Give a local path of the same content; what is remote is fetched and dropped later."""
        if self.is_local:
            yield Path(self.path)
            return
        folder = tempfile.mkdtemp(prefix="ulsdram-")
        try:
            yield self.fetch_to(Path(folder))
        except UlsdramError as error:
            # Messages name the copy, which is gone by the time that they are read.
            error.add_note(f"{Path(folder, self.name)} was a copy of {self.uri}")
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def fetch_to(self, folder: Path) -> Path:
        """Download the file or folder below `folder`; returns its local path."""
        target = folder / self.name
        if self.is_folder():
            target.mkdir(parents=True, exist_ok=True)
            root = self.path.rstrip("/")
            copies = {path: target / path.removeprefix(f"{root}/") for path in self.files()}
            for copy in copies.values():
                copy.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get(list(copies), [str(copy) for copy in copies.values()])
        elif self.exists():
            self.fs.get_file(self.path, str(target))
        else:
            raise StorageError(f"found nothing at {self.uri}; check the path and the credentials")
        return target


def parse_options(pairs: list[str]) -> dict[str, str]:
    """Return `KEY=VALUE` strings of a command line as storage options."""
    options = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise StorageError(f"found storage option without a value ({key!r}); write KEY=VALUE")
        options[key] = value
    return options


def file_version(info: Mapping[str, Any]) -> str:
    """Return what changes when a file's content does, as far as its storage can say."""
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    return f"{changed}/{info.get('ino', '')}"


def is_transient(error: BaseException) -> bool:
    """Return whether trying again may help: a failed request, not a missing or forbidden file."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    if isinstance(error, OSError):
        return error.errno is not None
    return isinstance(error, UnreachableError) or _is_of_client(error)


def retrying(call: Callable[[], _T], *, attempts: int = 5, first_wait: float = 0.2) -> _T:
    """Return what `call` gives, tried again after transient storage errors with doubling waits."""
    for attempt in range(attempts - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(first_wait * 2**attempt)
    return call()


@contextmanager
def _explained(place: Storage) -> Iterator[None]:
    """Say in one line why a place cannot be used; other errors rise as they are."""
    try:
        yield
    except Exception as error:
        kind, advice = _diagnosis(place, error)
        if kind is None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"cannot reach {place.uri}: {reason}; {advice}") from error


def _diagnosis(place: Storage, error: Exception) -> tuple[type[StorageError] | None, str]:
    """Return the error to raise instead and what to do about it; None: it is of another kind."""
    package = _PACKAGES.get(place.scheme)
    if isinstance(error, ImportError) or str(error).startswith("Protocol not known"):
        schemes = ", ".join(f"{scheme}://" for scheme in _PACKAGES)
        return (
            StorageError,
            f"run pip install {package}" if package else f"expected one of {schemes}",
        )
    if isinstance(error, PermissionError):
        return StorageError, "check the credentials and what they may do there"
    if not _is_of_client(error):
        return None, ""
    if "Credential" in type(error).__name__ or "Profile" in type(error).__name__:
        names = ", ".join(OPTION_NAMES.get(place.scheme, {}))
        return StorageError, f"give them as --storage-option ({names}) or in the environment"
    return UnreachableError, "check the address, its endpoint and the network"


def _is_of_client(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _CLIENT_MODULES


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def _local_path(text: str) -> str:
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return unquote(parts.netloc + parts.path)


def _write_temporary(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _is_precondition_failure(error: OSError) -> bool:
    """Return whether a conditional put lost: S3 says 412, or 409 while another put is under way."""
    text = f"{error} {error.__cause__}"
    return any(
        sign in text
        for sign in ("PreconditionFailed", "ConditionalRequestConflict", "412", "pre-condition")
    )
