"""Reading products out of Parquet: which columns, of which type, as raw bytes per row.

Text is read as bytes, so that one invalid byte costs one row and not the row group.
`input_hash` covers what the model sees: source texts, category and pictures (or their URIs).
Where there is a trusted column, it covers that cell alone, except in rows whose cell is null.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lake.digests import as_halves, digest, digests_of_one
from pipelines.lake.inputs import InputFile, describe_file
from pipelines.lake.source import InputChangedError, Source, without_views
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.lake.times import NO_TIME, update_order
from ulsdram_core.reasons import Reason

BATCH_ROWS = 256  # of rows with their pictures
KEY_BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class RowSettings:
    """What a run reads of a products table. `trusted`: a column that changes when a row does."""

    columns: Columns
    sources: tuple[str, ...]
    uses_pictures: bool
    trusted: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def text_columns(self) -> tuple[str, ...]:
        """Return columns of the sources, in encoding order."""
        return tuple(self.columns.sources[source] for source in self.sources)

    def content_columns(self) -> tuple[str, ...]:
        """Return columns that decide what is extracted."""
        pictures = self.columns.pictures() if self.uses_pictures else ()
        category = (self.columns.category,) if self.columns.category else ()
        return (*self.text_columns(), *category, *pictures)

    def key_columns(self) -> tuple[str, ...]:
        """Return columns that say which row this is and whether it changed."""
        names = (self.columns.product_id, self.columns.updated_at, self.trusted)
        return tuple(dict.fromkeys(name for name in names if name))

    def signature(self) -> str:
        """Return changes when anything changes that `input_hash` depends on."""
        return repr((self.columns, self.sources, self.uses_pictures, self.trusted))


@dataclass(slots=True)
class RawKeys:
    """What tells rows apart and whether they changed."""

    ids: pa.LargeBinaryArray
    hashes: np.ndarray  # [N, 2] uint64
    updated_at: np.ndarray  # [N] int64 in the order of `update_order`


@dataclass(slots=True)
class RawRows:
    """Rows as stored. `wrong_text`/`wrong_picture`: the file's column has an unusable type."""

    ids: list[bytes | None]
    texts: list[tuple[bytes | None, ...]]
    categories: list[bytes | None]
    pictures: list[tuple[bytes, ...]]
    picture_uris: list[tuple[bytes, ...]]
    wrong_text: bool
    wrong_picture: bool
    folder: str  # of the file, for picture URIs that are relative to it
    hashes: np.ndarray  # [N, 2] uint64


class FileReader:
    """One input Parquet file; raises SpoiledError when it cannot be parsed."""

    def __init__(self, place: Storage, file: InputFile, settings: RowSettings) -> None:
        self._file = file
        self._settings = settings
        read = file if place.uri == file.uri else describe_file(place)
        self._source = Source(read, place.options)
        try:
            with self.parsing():
                stream = pa.PythonFile(self._source, mode="r")
                self.parquet = pq.ParquetFile(stream, pre_buffer=not place.is_local)
                self.schema: pa.Schema = self.parquet.schema_arrow
                _ = self.schema.names  # raises here where a name is no text
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> "FileReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def parsing(self) -> AbstractContextManager[None]:
        """Return what Arrow makes of the bytes in here is a SpoiledError."""
        return self._source.parsing()

    def check_unchanged(self) -> None:
        """Raise InputChangedError when the file was replaced while it was read."""
        self._source.check_unchanged()

    def key_problem(self) -> tuple[Reason, str] | None:
        """Return why no row of this file can be read, and in words; None when they can."""
        names = self.schema.names
        for name in self._wanted():
            if names.count(name) > 1:
                return Reason.UNREADABLE_FILE, f"{names.count(name)} columns are named {name!r}"
        return None if self._has_key() else (Reason.WRONG_TYPE, _no_key(names))

    def _has_key(self) -> bool:
        name = self._settings.columns.product_id
        if name in self.schema.names:
            kind = self.schema.field(name).type
            return _is_text(kind) or pa.types.is_integer(kind)
        return name in dict(self._file.partitions)

    def has_trusted_column(self) -> bool:
        """Return whether rows can be compared without reading what they hold."""
        return bool(self._settings.trusted) and self._settings.trusted in self.schema.names

    def is_key_only(self, row_group: int) -> bool:
        """Return whether a row group can be compared without reading what its rows hold.

        A null in the trusted column tells nothing of its row.
        """
        return self.has_trusted_column() and self._num_nulls(row_group) == 0

    def _num_nulls(self, row_group: int) -> int:
        """Return nulls in the trusted column, from the footer where its writer counted them."""
        name = self._settings.trusted
        with self.parsing():
            group = self.parquet.metadata.row_group(row_group)
            columns = (group.column(i) for i in range(group.num_columns))
            counts = (column.statistics for column in columns if column.path_in_schema == name)
            for statistics in counts:
                if statistics is not None and statistics.has_null_count:
                    return int(statistics.null_count)
            found = self.parquet.iter_batches(
                KEY_BATCH_ROWS, row_groups=[row_group], columns=[name]
            )
            return sum(batch.column(0).null_count for batch in found)

    def stored_bytes(self, row_group: int, *, is_key_only: bool) -> int:
        """Return stored (compressed) bytes of the columns that are read of a row group.

        Only of one whose keys could be read: Arrow ends the process over broken statistics here.
        """
        names = set(self._present(is_key_only=is_key_only))
        with self.parsing():
            group, schema = self.parquet.metadata.row_group(row_group), self.parquet.schema
            return sum(
                group.column(i).total_compressed_size
                for i in range(group.num_columns)
                if schema.column(i).path.split(".")[0] in names
            )

    def keys(self, row_group: int, *, is_key_only: bool) -> Iterator[RawKeys]:
        """Yield keys of all rows of a row group, some at a time."""
        with self.parsing():
            found = self.parquet.iter_batches(
                KEY_BATCH_ROWS if is_key_only else BATCH_ROWS,
                row_groups=[row_group],
                columns=self._present(is_key_only=is_key_only),
                use_threads=False,
            )
            for batch in found:
                yield RawKeys(
                    self._id_array(batch),
                    self._trusted_hashes(batch) if is_key_only else self._raw(batch).hashes,
                    self._times(batch),
                )

    def take(self, row_group: int, rows: np.ndarray) -> Iterator[RawRows]:
        """Yield the chosen rows of a row group (ascending positions within it), some at a time.

        The row group is read once, from its beginning.
        """
        offset = taken = 0
        with self.parsing():
            found = self.parquet.iter_batches(
                BATCH_ROWS,
                row_groups=[row_group],
                columns=self._present(is_key_only=False),
                use_threads=False,
            )
            for batch in found:
                until = int(np.searchsorted(rows, offset + batch.num_rows))
                if until > taken:
                    chosen = pa.array(rows[taken:until] - offset)
                    yield self._raw(without_views(batch).take(chosen))
                    taken = until
                offset += batch.num_rows
                if taken == len(rows):
                    return
        raise InputChangedError(f"{self._file.uri}: row {rows[-1]} of {offset}")

    def _wanted(self) -> tuple[str, ...]:
        columns = self._settings.key_columns() + self._settings.content_columns()
        return tuple(dict.fromkeys(columns))

    def _present(self, *, is_key_only: bool) -> list[str]:
        wanted = self._settings.key_columns() if is_key_only else self._wanted()
        names = [name for name in dict.fromkeys(wanted) if name in self.schema.names]
        # a file whose wanted columns all come from its path still has to be counted
        return names or self.schema.names[:1]

    def _raw(self, batch: pa.RecordBatch | pa.Table) -> RawRows:
        settings = self._settings
        texts = [self._bytes(batch, name) for name in settings.text_columns()]
        category = self._bytes(batch, settings.columns.category, allow_integers=True)
        embedded, uris, wrong_picture = self._pictures(batch)
        empty: list[bytes | None] = [None] * batch.num_rows
        raw = RawRows(
            ids=self._ids(batch),
            texts=list(zip(*(text or empty for text in texts), strict=True)),
            categories=category or empty,
            pictures=embedded,
            picture_uris=uris,
            wrong_text=any(text is None for text in texts),
            wrong_picture=wrong_picture,
            folder=self._file.folder,
            hashes=np.zeros((0, 2), np.uint64),
        )
        trusted = self._trusted(batch) if self.has_trusted_column() else empty
        pairs = zip(trusted, _contents(raw), strict=True)
        raw.hashes = as_halves(known or digest(content) for known, content in pairs)
        return raw

    def _ids(self, batch: Any) -> list[bytes | None]:
        values: list[bytes | None] = self._id_array(batch).to_pylist()
        return values

    def _id_array(self, batch: Any) -> pa.LargeBinaryArray:
        name = self._settings.columns.product_id
        if name in batch.schema.names:
            found = as_binary(batch.column(name), allow_integers=True)
        else:
            value = (dict(self._file.partitions).get(name) or "").encode() or None
            found = pa.array([value] * batch.num_rows, pa.large_binary())
        return pa.nulls(batch.num_rows, pa.large_binary()) if found is None else found

    def _bytes(
        self, batch: Any, name: str | None, *, allow_integers: bool = False
    ) -> list[bytes | None] | None:
        """Return a column as bytes per row (nulls where there is none); None: wrong type."""
        if name is None or name not in batch.schema.names:
            value = dict(self._file.partitions).get(name or "")
            return [value.encode() if value is not None else None] * batch.num_rows
        return _as_bytes(batch.column(name), allow_integers=allow_integers)

    def _pictures(self, batch: Any) -> tuple[list[Any], list[Any], bool]:
        columns, num_rows = self._settings.columns, batch.num_rows
        nothing: list[tuple[bytes, ...]] = [()] * num_rows
        if not self._settings.uses_pictures:
            return nothing, nothing, False
        embedded, uris, is_wrong = list(nothing), list(nothing), False
        for name in columns.pictures():
            if name not in batch.schema.names:
                continue
            lists = _as_byte_lists(batch.column(name), is_uri=name == columns.image_uri)
            if lists is None:
                is_wrong = True
                continue
            target = uris if name == columns.image_uri else embedded
            for i, items in enumerate(lists):
                target[i] = (*target[i], *items)
        return embedded, uris, is_wrong

    def _times(self, batch: Any) -> np.ndarray:
        name = self._settings.columns.updated_at or ""
        if name in batch.schema.names:
            return _as_times(batch.column(name))
        (time,) = update_order(pl.Series([dict(self._file.partitions).get(name)], dtype=pl.String))
        return np.full(batch.num_rows, time)

    def _trusted_hashes(self, batch: Any) -> np.ndarray:
        return as_halves(found for found in self._trusted(batch) if found is not None)

    def _trusted(self, batch: Any) -> list[bytes | None]:
        """Return a digest of every trusted cell; None where the cell is null."""
        column = batch.column(self._settings.trusted)
        if pa.types.is_integer(column.type):  # as `repr`, 5 times faster
            cells = column.cast(pa.string()).cast(pa.binary()).to_pylist()
        else:
            cells = [None if v is None else repr(v).encode() for v in column.to_pylist()]
        return digests_of_one(cells)


def _contents(raw: RawRows) -> Iterator[tuple[bytes | None, ...]]:
    rows = zip(raw.texts, raw.categories, raw.pictures, raw.picture_uris, strict=True)
    for texts, category, pictures, uris in rows:
        # an empty picture counts as null: b"" ends the pictures
        yield (*texts, category, *(picture or None for picture in pictures), b"", *uris)


def _no_key(names: list[str]) -> str:
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"no key column of a usable type; found {shown}"


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_null,
        _is_binary,
    )
    return any(check(kind) for check in checks)


def _is_binary(kind: pa.DataType) -> bool:
    checks = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
        pa.types.is_null,
    )
    return any(check(kind) for check in checks)


def _as_bytes(column: Any, *, allow_integers: bool = False) -> list[bytes | None] | None:
    found = as_binary(column, allow_integers=allow_integers)
    return None if found is None else found.to_pylist()


def as_binary(column: Any, *, allow_integers: bool = False) -> pa.LargeBinaryArray | None:
    """Return a column as bytes; None: it has another type than text."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if allow_integers and pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not _is_text(column.type):
        return None
    return pc.cast(column, pa.large_binary())


def _as_byte_lists(column: Any, *, is_uri: bool) -> list[list[bytes]] | None:
    """Return a picture column (one or several per row) as a list per row, nulls left out."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    item = kind.value_type if is_list else kind
    if not (_is_text(item) if is_uri else _is_binary(item)):
        return None
    if is_list:
        rows = pc.cast(column, pa.large_list(pa.large_binary())).to_pylist()
        return [[item for item in row or [] if item is not None] for row in rows]
    values = _as_bytes(column)
    return None if values is None else [[] if item is None else [item] for item in values]


def _as_times(column: Any) -> np.ndarray:
    kind = column.type
    is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)
    if not is_time and not _is_text(kind):
        return np.full(len(column), NO_TIME)
    return update_order(pl.Series(pl.from_arrow(column))).to_numpy()
