"""An input file opened at the very version that was listed.

What the storage does wrong and what is wrong with the bytes reach a reader as errors of the same
classes; a source remembers the storage's own ones, so that nobody has to guess.
"""

import errno
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pyarrow as pa

from pipelines.lake.inputs import InputFile, file_info
from pipelines.lake.storage import Storage


class InputChangedError(RuntimeError):
    """A file is not what was listed any more; the plan has to be remade."""


class SpoiledError(ValueError):
    """Bytes that arrived whole and are not what they should be; the storage is not at fault."""


class Source(io.RawIOBase):
    """A readable file. `failure` is what the storage raised while it was read."""

    def __init__(self, file: InputFile, options: Mapping[str, str]) -> None:
        super().__init__()
        self._file = file
        self._place = Storage.of(file.uri, options)
        self.failure: BaseException | None = None
        try:
            self._stream = _open(self._place)
        except FileNotFoundError as error:
            raise InputChangedError(f"{file.uri} is gone") from error
        try:
            self._check(_opened_info(self._place, self._stream))
        except BaseException:
            self._stream.close()
            raise

    def check_unchanged(self) -> None:
        """Raise InputChangedError when another file has taken this one's place meanwhile."""
        try:
            self._check(file_info(self._place))
        except FileNotFoundError as error:
            raise InputChangedError(f"{self._file.uri} is gone") from error

    @contextmanager
    def parsing(self) -> Iterator[None]:
        """Tell what the storage raised from what Arrow makes of the bytes (SpoiledError)."""
        try:
            yield
        except Exception as error:
            if self.failure is not None:
                raise self.failure from error
            if not _is_of_parser(error):
                raise
            raise SpoiledError(str(error)[:500]) from error

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes; fewer only at the end of the file."""
        size = -1 if size is None else size
        rest = max(0, self._file.size - self.tell())
        try:
            data = self._stream.read(size)
        except Exception as error:
            self.failure = error
            raise
        expected = rest if size < 0 else min(size, rest)
        if len(data) < expected:
            self.failure = OSError(
                errno.EIO, f"{len(data)} of {expected} bytes came back of {self._file.uri}"
            )
            raise self.failure
        return data

    def readable(self) -> bool:
        """Return True: always."""
        return True

    def seekable(self) -> bool:
        """Return True: always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Return the position, as any file does."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position, as any file does."""
        return self._stream.tell()

    def close(self) -> None:
        """Release the file."""
        if not self.closed and hasattr(self, "_stream"):
            self._stream.close()
        super().close()

    def _check(self, info: Mapping[str, Any]) -> None:
        if not self._file.is_described_by(info):
            raise InputChangedError(f"{self._file.uri} was replaced since it was listed")


def _open(place: Storage) -> BinaryIO:
    if place.is_local:
        return cast(BinaryIO, open(place.path, "rb"))
    return cast(BinaryIO, place.fs.open(place.path, "rb"))


def _opened_info(place: Storage, stream: BinaryIO) -> Mapping[str, Any]:
    """Return what is known of the opened file itself, which may not be the one under its name."""
    if place.is_local:
        found = os.fstat(stream.fileno())
        return {"size": found.st_size, "mtime": found.st_mtime, "ino": found.st_ino}
    # fsspec asks for it when the file is opened; s3fs reads nothing but that very version
    return getattr(stream, "details", None) or file_info(place)


def _is_of_parser(error: Exception) -> bool:
    """Return whether Arrow complains of the bytes it was given, not of the machine it runs on."""
    if isinstance(error, MemoryError):  # a broken length, unless a machine could have that much
        asked = re.search(r"size (\d+) failed", str(error))
        return asked is not None and int(asked.group(1)) > _machine_memory()
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, pa.ArrowException | UnicodeDecodeError)


def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def without_views(rows: Any) -> Any:
    """Return a batch or table with views of text and bytes as plain ones."""
    fields = [field.with_type(_plain(field.type)) for field in rows.schema]
    schema = pa.schema(fields, rows.schema.metadata)
    return rows if schema.equals(rows.schema) else rows.cast(schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list and _plain(kind.value_type) != kind.value_type:
        return pa.large_list(_plain(kind.value_type))
    return kind
