"""The input cut into pieces of work: a JSON file, a byte range of lines, or a row group."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.inputs import CSV_ENDINGS, PARQUET_ENDINGS, list_inputs
from pipelines.lake.storage import Storage
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.rows import Problem
from pipelines.prepare.title_groups import SPLITS, split_of_name
from ulsdram_core.reasons import Reason

_MEPAVE_NAME = re.compile(r"jdair?\.jave\.fashion\.(train|valid|test)(\.txt)?$")
_NUM_FOOTER_READERS = 16
_NUM_IGNORED_LISTED = 100
_DELTA_LOG = "/_delta_log/"


@dataclass(frozen=True, slots=True)
class RawFile:
    """One file of the input; `name` is its path below the input, for reports."""

    name: str
    path: str
    size: int
    split: str | None
    partitions: tuple[tuple[str, str | None], ...] = ()
    """Columns that a Delta table keeps in the names of its folders."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One piece of work: bytes [start, end) of a line file, row group `start`, or a whole file."""

    index: int
    file: RawFile
    start: int = 0
    end: int = 0


@dataclass(slots=True)
class Ignored:
    """Files of the input that are not read: how many, and the names of the first."""

    found: int = 0
    listed: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count a file."""
        self.found += 1
        if len(self.listed) < _NUM_IGNORED_LISTED:
            self.listed.append(name)


@dataclass(slots=True)
class Inputs:
    """Everything to read, what could not even be opened, and Parquet schemas by file name."""

    shards: list[Shard]
    ignored: Ignored = field(default_factory=Ignored)
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    schemas: dict[str, pa.Schema] = field(default_factory=dict)

    def given_splits(self) -> set[str]:
        """Return the splits that the input itself names."""
        return {shard.file.split for shard in self.shards if shard.file.split}


def find_raw_files(config: PrepareConfig) -> Inputs:
    """Find the files of this kind and cut them; ValueError where there is nothing to read."""
    place = config.place(config.input)
    if not place.exists():
        raise ValueError(f"found nothing at --in {place.uri}; check the path and the credentials")
    files, ignored = _FINDERS[config.kind](place, config)
    if not files:
        raise ValueError(
            f"found no {_EXPECTED[config.kind]} in --in {place.uri}; check the path and the kind"
        )
    files = sorted(_with_splits(files, config), key=lambda file: file.name)
    inputs = Inputs(shards=[], ignored=ignored)
    footers = _footers(files, place)
    for file in files:
        _cut(file, footers.get(file.name), inputs, config)
    return inputs


@dataclass(frozen=True, slots=True)
class _Footer:
    """Row groups and schema of a Parquet file, or why it cannot be read."""

    num_row_groups: int = 0
    schema: pa.Schema | None = None
    error: str = ""


def _cut(file: RawFile, footer: _Footer | None, inputs: Inputs, config: PrepareConfig) -> None:
    if footer is not None and footer.error:
        problem = Problem(0, Reason.UNREADABLE_FILE, footer.error, num_rows=0)
        inputs.problems.append((file.name, problem))
    for start, end in _ranges(file, footer, config):
        inputs.shards.append(Shard(len(inputs.shards), file, start, end))
    if footer is not None and not footer.error:
        inputs.schemas[file.name] = footer.schema


def _ranges(
    file: RawFile, footer: _Footer | None, config: PrepareConfig
) -> Iterator[tuple[int, int]]:
    if footer is not None:
        return ((number, number + 1) for number in range(footer.num_row_groups))
    if config.kind == "mae":
        return iter([(0, file.size)])
    if is_whole(file.path):
        return iter([(0, sys.maxsize)])
    step = config.chunk_bytes
    return ((start, start + step) for start in range(0, max(file.size, 1), step))


def _footers(files: Iterable[RawFile], place: Storage) -> dict[str, _Footer]:
    parquet = [file for file in files if is_parquet(file.path)]
    filesystem = place.arrow

    def read(file: RawFile) -> _Footer:
        try:
            metadata = pq.read_metadata(file.path, filesystem=filesystem)
            return _Footer(metadata.num_row_groups, metadata.schema.to_arrow_schema())
        except (OSError, pa.ArrowException) as error:
            return _Footer(error=" ".join(str(error).split()) or type(error).__name__)

    with ThreadPoolExecutor(_NUM_FOOTER_READERS) as pool:
        return dict(zip((file.name for file in parquet), pool.map(read, parquet), strict=True))


def _with_splits(files: list[RawFile], config: PrepareConfig) -> Iterator[RawFile]:
    """Keep the splits that names speak of; files outside them beside files within are a mistake."""
    if config.splits == "made":
        return (replace(file, split=None) for file in files)
    homeless = [file.name for file in files if file.split is None]
    if homeless and len(homeless) < len(files):
        raise ValueError(
            f"found {homeless[0]} outside {'/'.join(SPLITS)} folders while other files are in "
            "them; move it or ask for --splits made"
        )
    return iter(files)


def _mae_files(place: Storage, config: PrepareConfig) -> tuple[list[RawFile], Ignored]:
    return _files_below(place, (".json",), skip=config.images)


def _tagged_files(place: Storage, config: PrepareConfig) -> tuple[list[RawFile], Ignored]:
    return _files_below(place, row_endings(), skip=config.images)


def _mepave_files(place: Storage, config: PrepareConfig) -> tuple[list[RawFile], Ignored]:
    found, ignored = _files_below(place, ("",), skip=config.images)
    files: dict[str, RawFile] = {}
    for file in found:
        match = _MEPAVE_NAME.match(file.name)
        if match is None:
            ignored.add(file.name)
            continue
        split = match.group(1)
        if split in files:
            raise ValueError(
                f"found {files[split].name} and {file.name} for one split; keep one of them"
            )
        files[split] = replace(file, split=split)
    return list(files.values()), ignored


def _files_below(
    place: Storage, endings: tuple[str, ...], *, skip: str | None
) -> tuple[list[RawFile], Ignored]:
    """Return visible files with one of the endings and those of Delta tables, and all others."""
    root = place.path.rstrip("/")
    if not place.is_folder():
        return [_raw_file(place.name, root, int(place.info()["size"]))], Ignored()
    skipped = _strictly_below(root, skip, place)
    listing = {path: info for path, info in place.files().items() if not path.startswith(skipped)}
    tables = tuple(sorted({p.partition(_DELTA_LOG)[0] + "/" for p in listing if _DELTA_LOG in p}))
    files, ignored = [], Ignored()
    for path, info in listing.items():
        name = path.removeprefix(root).lstrip("/")
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if path.startswith(tables):
            continue
        if hidden or not name.lower().endswith(endings):
            ignored.add(name)
            continue
        files.append(_raw_file(name, path, int(info["size"])))
    for table in tables:
        files += _delta_files(place.sibling(table.rstrip("/")), root)
    return files, ignored


def _strictly_below(root: str, skip: str | None, place: Storage) -> tuple[str, ...]:
    """Return the picture folder, to be passed over; one that holds the whole input is not."""
    folder = Storage.of(skip, place.options).path.rstrip("/") + "/" if skip else ""
    return (folder,) if folder.startswith(f"{root}/") and folder != f"{root}/" else ()


def _delta_files(table: Storage, root: str) -> Iterator[RawFile]:
    """Yield the files of the newest version: the folder also holds rows that were replaced."""
    split = split_of_name(table.path.removeprefix(root).split("/"))
    for file in list_inputs([table.uri], table.options):
        path = Storage.of(file.uri, table.options).path
        name = path.removeprefix(root).lstrip("/")
        yield RawFile(name, path, file.size, split, file.partitions)


def _raw_file(name: str, path: str, size: int) -> RawFile:
    return RawFile(name, path, size, split_of_name(name.split("/")))


_FINDERS = {"mae": _mae_files, "mepave": _mepave_files, "tagged": _tagged_files}
_EXPECTED = {
    "mae": "*.json files",
    "mepave": "jdai.jave.fashion.{train,valid,test}[.txt] files",
    "tagged": "*.parquet, *.jsonl or *.csv files, nor a Delta table,",
}


LINES = (".jsonl", ".ndjson")


PACKED = ".gz"


def row_endings() -> tuple[str, ...]:
    """Return endings of all files that rows can be read from."""
    return (*PARQUET_ENDINGS, *CSV_ENDINGS, *LINES, *(ending + PACKED for ending in LINES))


def is_parquet(path: str) -> bool:
    """Return whether the file has row groups that can be read one by one."""
    return path.lower().endswith(PARQUET_ENDINGS)


def is_csv(path: str) -> bool:
    """Return whether the file is text with a header line."""
    return path.lower().endswith(CSV_ENDINGS)


def is_whole(path: str) -> bool:
    """Return whether the file is only read from its start: packed, or line ends in values."""
    return path.lower().endswith(PACKED) or is_csv(path)
