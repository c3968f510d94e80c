"""Lines of a byte range of a file; the ranges of a file together give each line once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

from pipelines.lake.storage import Storage

_BLOCK = 1 << 20


def open_lines(place: Storage, path: str) -> IO[bytes]:
    """Open a file of `place`'s filesystem; lines can be read with a limit wherever it lies."""
    stream = place.fs.open(path, "rb", block_size=_BLOCK)
    # fsspec's own files of clouds read lines of any length only
    lines: IO[bytes] = stream if place.is_local else io.BufferedReader(stream, _BLOCK)
    return lines


def read_lines(
    file: IO[bytes], *, start: int, end: int, max_bytes: int
) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number in the range from 1, line without its end) of lines that begin in [start, end).

    None stands for a line of more than `max_bytes`.
    """
    file.seek(max(start - 1, 0))
    if start > 0:
        _skip_line(file)
    number = 0
    while file.tell() < end:
        line = file.readline(max_bytes + 1)
        if not line:
            return
        number += 1
        if len(line) > max_bytes and not line.endswith(b"\n"):
            _skip_line(file)
            yield number, None
        else:
            yield number, line.rstrip(b"\r\n")


def _skip_line(file: IO[bytes]) -> None:
    while True:
        rest = file.readline(_BLOCK)
        if not rest or rest.endswith(b"\n"):
            return
