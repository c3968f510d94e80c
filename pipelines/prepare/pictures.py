"""Pictures that a data set names by path, read from one folder and from nowhere else."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.lake.storage import Storage, retrying
from ulsdram_core.errors import PictureError
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.reasons import Reason

# A check decodes at this side: enough to find truncated data, cheap through scaled decoding.
_CHECK_SIDE = 64
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """A folder of pictures; paths inside a data set are not trusted to stay in it."""

    root: Storage
    config: ImageConfig = field(default_factory=lambda: ImageConfig(size=_CHECK_SIDE))

    def read(self, name: str) -> bytes:
        """Encoded bytes of the picture `name`; PictureError where there is no usable one."""
        parts = _safe_parts(name)
        data = self._read_local(parts) if self.root.is_local else self._read_remote(parts)
        return check_picture(data, self.config)

    def _read_local(self, parts: list[str]) -> bytes:
        root = Path(self.root.path).resolve()
        try:
            path = root.joinpath(*parts).resolve(strict=True)
            if not path.is_relative_to(root):
                raise _outside("/".join(parts))
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _unreachable(f"{'/'.join(parts)!r} is not a file")
            self._check_size(status.st_size)
            return path.read_bytes()
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, PictureError):
                raise
            raise _unreachable(f"cannot read {'/'.join(parts)!r}") from error

    def _read_remote(self, parts: list[str]) -> bytes:
        return _fetched(self.root.join(*parts), self.config.max_bytes)

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self.config.max_bytes:
            raise _too_large(num_bytes, self.config.max_bytes)


@dataclass(frozen=True, slots=True)
class PictureAddresses:
    """Pictures by address; what has no scheme and no root lies below `folder`.

    Only a table on this machine may name files of this machine outside that folder.
    """

    folder: PictureFolder

    def read(self, address: str) -> bytes:
        """Encoded bytes of the picture at `address`; PictureError where there is no usable one."""
        if "://" not in address and not address.startswith("/"):
            return self.folder.read(address)
        config = self.folder.config
        try:
            place = Storage.of(address, self.folder.root.options)
        except ValueError as error:
            raise _unreachable(f"cannot read {address[:200]!r}") from error
        if not place.is_local:
            return check_picture(_fetched(place, config.max_bytes), config)
        if not self.folder.root.is_local:
            raise _outside(address)
        return PictureFolder(Storage.of("/"), config).read(place.path.lstrip("/"))


def check_picture(data: bytes, config: ImageConfig | None = None) -> bytes:
    """`data` itself when it decodes; PictureError otherwise."""
    decode_picture(data, config or ImageConfig(size=_CHECK_SIDE))
    return data


def _fetched(place: Storage, max_bytes: int) -> bytes:
    def read() -> bytes:
        with place.fs.open(place.path, "rb", block_size=_BLOCK) as stream:
            return bytes(stream.read(max_bytes + 1))

    try:
        data = retrying(read, attempts=3)
    except Exception as error:  # whatever a foreign server does costs this picture only
        raise _unreachable(f"cannot read {place.uri[:200]!r}") from error
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes)
    return data


def _too_large(num_bytes: int, max_bytes: int) -> PictureError:
    return PictureError(
        f"found {num_bytes} bytes, expected at most {max_bytes}", reason=Reason.PICTURE_TOO_LARGE
    )


def _safe_parts(name: str) -> list[str]:
    if not name.strip():
        raise PictureError("found an empty picture path", reason=Reason.NO_PICTURE)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name) or name.startswith(("/", "\\", "~")):
        raise _outside(name)
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if not parts or ".." in parts or not name.isprintable():
        raise _outside(name)
    return parts


def _outside(name: str) -> PictureError:
    return PictureError(
        f"picture path {name[:200]!r} leads out of the picture folder",
        reason=Reason.UNREACHABLE_PICTURE,
    )


def _unreachable(message: str) -> PictureError:
    return PictureError(message, reason=Reason.UNREACHABLE_PICTURE)
