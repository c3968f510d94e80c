"""Pictures by address: the one reader of what strangers wrote into a table.

An address names a file beside its table, an object in a bucket of the input, or something on the
public Internet; whatever else it names is refused, unless the user allowed it.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.lake.options import LOCAL_SCHEMES
from pipelines.lake.storage import Storage, retrying
from pipelines.lake.web_pictures import (
    WEB_SCHEMES,
    Deadline,
    RefusedAddressError,
    WebClient,
    check_host_rule,
)
from ulsdram_core.errors import PictureError
from ulsdram_core.image import ImageConfig
from ulsdram_core.reasons import Reason

OBJECT_SCHEMES = frozenset({"s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf"})
_ATTEMPTS = 3
_HF_PARTS = 3  # hf://datasets/OWNER/NAME


class PictureAddressConfig(BaseModel):
    """Where pictures may be read from that a table names by address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...] = Field(
        (),
        description="Hosts, host:port or networks (10.0.0.0/8) that http(s) pictures are read "
        "from although their address is private; public ones need no mention.",
    )
    roots: tuple[str, ...] = Field(
        (),
        description="Folders or buckets besides that of the table that pictures may lie in; "
        "folders of this machine count for tables on this machine only.",
    )
    seconds: float = Field(10.0, gt=0, description="Seconds after which a picture is given up.")

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_host_rule, hosts))

    def build(
        self,
        inputs: Iterable[str] = (),
        options: Mapping[str, str] | None = None,
        *,
        max_bytes: int | None = None,
    ) -> "PictureReader":
        """Return the reader for tables at these URIs."""
        roots = [Storage.of(root, options) for root in self.roots]
        buckets = {_bucket(place) for uri in inputs if not (place := Storage.of(uri)).is_local}
        return PictureReader(
            WebClient(frozenset(self.hosts)),
            local_roots=tuple(root.path for root in roots if root.is_local),
            remote_roots=(*sorted(buckets), *(root.uri for root in roots if not root.is_local)),
            options=dict(options or {}),
            seconds=self.seconds,
            max_bytes=max_bytes or ImageConfig().max_bytes,
        )


@dataclass(frozen=True, slots=True)
class PictureReader:
    """Reads encoded pictures; PictureError, with its reason, is all that rises. Picklable."""

    web: WebClient
    local_roots: tuple[str, ...]
    remote_roots: tuple[str, ...]
    options: Mapping[str, str] = field(repr=False)
    seconds: float
    max_bytes: int

    def read(self, address: str, folder: Storage) -> bytes:
        """Return the picture at an address in a table; without a scheme it is below `folder`."""
        return self._guarded(address, lambda: self._read(address, folder))

    def read_name(self, name: str, folder: Storage) -> bytes:
        """Return the picture `name` below `folder`, and from nowhere else."""
        return self._guarded(name, lambda: self._read_below(name, folder, roots=()))

    def _guarded(self, address: str, read: Callable[[], bytes]) -> bytes:
        if not address.strip():
            raise PictureError("found an empty picture address", reason=Reason.NO_PICTURE)
        try:
            data = read()
        except PictureError:
            raise
        except RefusedAddressError as error:
            message = f"refused to read {address[:200]!r}: {error}"
            raise PictureError(message, reason=Reason.REFUSED_ADDRESS) from error
        except Exception as error:
            message = f"cannot read {address[:200]!r}: {str(error)[:200] or type(error).__name__}"
            raise PictureError(message, reason=Reason.UNREACHABLE_PICTURE) from error
        if len(data) > self.max_bytes:
            message = f"found more than {self.max_bytes} bytes at {address[:200]!r}"
            raise PictureError(message, reason=Reason.PICTURE_TOO_LARGE)
        return data

    def _read(self, address: str, folder: Storage) -> bytes:
        scheme, separator, _ = address.partition("://")
        scheme = scheme.lower() if separator else ""
        if scheme in WEB_SCHEMES:
            deadline = Deadline.after(self.seconds)
            return retrying(
                lambda: self.web.read(address, max_bytes=self.max_bytes, deadline=deadline),
                attempts=_ATTEMPTS,
            )
        if scheme in OBJECT_SCHEMES:
            return self._read_object(self._in_a_root(address))
        if scheme in LOCAL_SCHEMES and (scheme or address.startswith("/")):
            if not folder.is_local:
                raise RefusedAddressError("a table elsewhere names no file of this machine")
            return self._read_file(Path(Storage.of(address).path), folder, self.local_roots)
        return self._read_below(address, folder, self.local_roots)

    def _read_below(self, name: str, folder: Storage, roots: tuple[str, ...]) -> bytes:
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
        is_plain = parts and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|[/\\~]", name)
        if not is_plain or not name.isprintable():
            raise RefusedAddressError("is no path below the folder of its table")
        if folder.is_local:
            return self._read_file(Path(folder.path, *parts), folder, roots)
        if ".." in parts:
            raise RefusedAddressError("leads out of the folder of its table")
        return self._read_object(folder.join(*parts))

    def _read_file(self, path: Path, folder: Storage, roots: tuple[str, ...]) -> bytes:
        """Return a file whose real place, links followed, is in the folder or a root."""
        allowed = [Path(root).resolve() for root in (folder.path, *roots)]
        try:
            real = path.resolve()
        except (RuntimeError, ValueError) as error:  # a loop of links, a NUL
            raise OSError(f"is no path: {error}") from error
        if not any(real.is_relative_to(root) for root in allowed):
            raise RefusedAddressError("leads out of the folder of its table")
        # A pipe would be waited for; a link put there since would be followed.
        handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError("is not a file")
            return file.read(self.max_bytes + 1)

    def _in_a_root(self, address: str) -> Storage:
        place = Storage.of(address, self.options)
        parts = place.uri.partition("://")[2].split("/")
        if not place.uri.isprintable() or {".", ".."} & set(parts):
            raise RefusedAddressError("is no plain address of an object")
        if not any(f"{_plain(place)}/".startswith(f"{root}/") for root in self._plain_roots()):
            raise RefusedAddressError("is in no bucket of the input")
        return place

    def _plain_roots(self) -> list[str]:
        return [_plain(Storage(root)) for root in self.remote_roots]

    def _read_object(self, place: Storage) -> bytes:
        def read() -> bytes:
            with place.fs.open(place.path, "rb", block_size=1 << 20) as stream:
                return bytes(stream.read(self.max_bytes + 1))

        return Deadline.after(self.seconds).call(lambda: retrying(read, attempts=_ATTEMPTS))


def _bucket(place: Storage) -> str:
    """Return the part of an address that names who owns it."""
    scheme, _, path = place.uri.partition("://")
    count = _HF_PARTS if place.scheme == "hf" else 1
    return f"{scheme}://{'/'.join(path.split('/')[:count])}"


def _plain(place: Storage) -> str:
    """Return an address with the one name of its scheme: s3a and s3 are one storage."""
    return f"{place.scheme}://{place.uri.partition('://')[2]}".rstrip("/")
