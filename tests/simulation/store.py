"""A simulated object store: `sim://...` below a folder in memory, one storage call per request.

Object puts are whole; a listing may be stale by one change; a deletion of many files may stop
halfway. What deltalake writes (it knows no fsspec) lies in the same folder.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from simulation.processes import storage_call

SCHEME = "sim"
BASE = Path("/dev/shm" if os.path.isdir("/dev/shm") else os.environ.get("TMPDIR", "/tmp"))
ROOT = BASE / f"ulsdram-simulation-{os.getpid()}"


def real_path(path: str) -> Path:
    """Where an address of the store lies on this machine."""
    return ROOT / path.removeprefix(f"{SCHEME}://").strip("/")


class SimulatedFileSystem(AbstractFileSystem):
    """fsspec's view of the store; the same for all worlds, which have different first folders."""

    protocol = SCHEME
    cachable = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._newest: tuple[str, bool] | None = None  # path, whether it was put (else deleted)
        self._etags: dict[str, tuple[int, int, str]] = {}

    def forget(self) -> None:
        """Listings are up to date again."""
        self._newest = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{SCHEME}://").rstrip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"{SCHEME}://{self._strip_protocol(name)}"

    def exists(self, path: str, **_: Any) -> bool:
        return storage_call("exists", path, real_path(path).exists)

    def isdir(self, path: str) -> bool:
        return storage_call("exists", path, real_path(path).is_dir)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return storage_call("info", path, lambda: self._info(path))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        def names() -> list[str]:
            where = real_path(path)
            if not where.is_dir():
                raise FileNotFoundError(path)
            return sorted(f"{self._strip_protocol(path)}/{name}" for name in os.listdir(where))

        found = self._listed(path, names, is_deep=False)
        return [self._info(name) for name in found] if detail else found

    def find(self, path: str, detail: bool = False, **_: Any) -> Any:
        found = self._listed(path, lambda: self._names_below(path), is_deep=True)
        return {name: self._info(name) for name in found} if detail else found

    def _names_below(self, path: str) -> list[str]:
        where = real_path(path)
        if where.is_file():
            return [self._strip_protocol(path)]
        found = [Path(folder, name) for folder, _, names in os.walk(where) for name in names]
        return sorted(str(file.relative_to(ROOT)) for file in found)

    def _listed(self, path: str, names: Callable[[], list[str]], *, is_deep: bool) -> list[str]:
        def stale() -> list[str]:
            found = names()
            newest, was_put = self._newest or ("", True)
            inner = newest.removeprefix(f"{self._strip_protocol(path)}/")
            if was_put and inner != newest and (is_deep or "/" not in inner):
                return [name for name in found if name != newest]
            return found

        return storage_call("list", path, names, stale=stale)

    def _info(self, path: str) -> dict[str, Any]:
        where, name = real_path(path), self._strip_protocol(path)
        if where.is_dir():
            return {"name": name, "size": 0, "type": "directory"}
        if not where.exists():
            raise FileNotFoundError(path)
        state = where.stat()
        known = self._etags.get(name)
        if known is None or known[:2] != (state.st_mtime_ns, state.st_ino):
            etag = hashlib.blake2b(where.read_bytes(), digest_size=8).hexdigest()
            known = self._etags[name] = (state.st_mtime_ns, state.st_ino, etag)
        return {"name": name, "size": state.st_size, "type": "file", "ETag": known[2]}

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        return storage_call("get", path, real_path(path).read_bytes)[slice(start, end)]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        kind = "create" if mode == "create" else "put"
        storage_call(kind, path, lambda: self._put(path, value, is_new=mode == "create"))

    def _put(self, path: str, value: bytes, *, is_new: bool) -> None:
        where = real_path(path)
        is_there = where.exists()
        if is_new and is_there:
            raise FileExistsError(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.unlink(missing_ok=True)  # a new inode: open readers keep the old content
        where.write_bytes(value)
        if not is_there:
            self._newest = self._strip_protocol(path), True

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: Any = None) -> None:
        del recursive, maxdepth
        for one in [path] if isinstance(path, str) else path:
            remove, halve = partial(self._remove, one), partial(self._halve, one)
            storage_call("delete", one, remove, half=halve)

    def rm_file(self, path: str) -> None:
        self.rm(path)

    def _rm(self, path: str) -> None:
        self.rm(path)

    def _remove(self, path: str) -> None:
        where = real_path(path)
        if where.is_dir():
            shutil.rmtree(where)
        else:
            where.unlink(missing_ok=True)
        self._tidy(where.parent)

    def _halve(self, path: str) -> None:
        names = self._names_below(path)
        for name in names[: len(names) // 2]:
            real_path(name).unlink(missing_ok=True)

    def _tidy(self, folder: Path) -> None:
        """An object store has no empty folders; the world's own stays."""
        while len(folder.relative_to(ROOT).parts) > 1 and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            return _Upload(lambda data: self.pipe_file(path, data))
        content = storage_call("open", path, real_path(path).read_bytes)
        return _Reader(path, content)

    def open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        return self._open(path, mode, **more)


class _Reader(io.BytesIO):
    """An opened object: its bytes are asked for at the first read, as s3fs does."""

    def __init__(self, path: str, content: bytes) -> None:
        super().__init__(content)
        self._path = path
        self._is_there = False

    def read(self, size: int | None = -1) -> bytes:
        if not self._is_there:
            storage_call("get", self._path, lambda: None)
            self._is_there = True
        return super().read(size)


class _Upload(io.BytesIO):
    """An object that is put when it is closed."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        super().__init__()
        self._put = put

    def close(self) -> None:
        if not self.closed:
            self._put(self.getvalue())
        super().close()
