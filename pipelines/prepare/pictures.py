"""Pictures that a data set names by path, read from one folder and from nowhere else."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.storage import Storage
from ulsdram_core.errors import PictureError
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.reasons import Reason

# A check decodes at this side: enough to find truncated data, cheap through scaled decoding.
_CHECK_SIDE = 64


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
        place = self.root.join(*parts)
        try:
            self._check_size(int(place.info().get("size") or 0))
            return place.read_bytes()
        except OSError as error:
            raise _unreachable(f"cannot read {'/'.join(parts)!r}") from error

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self.config.max_bytes:
            raise PictureError(
                f"found {num_bytes} bytes, expected at most {self.config.max_bytes}",
                reason=Reason.PICTURE_TOO_LARGE,
            )


def check_picture(data: bytes, config: ImageConfig | None = None) -> bytes:
    """`data` itself when it decodes; PictureError otherwise."""
    decode_picture(data, config or ImageConfig(size=_CHECK_SIDE))
    return data


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
