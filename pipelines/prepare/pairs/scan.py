"""Reading a products table once: every row becomes a narrow trace, pictures stay where they are.

A task is one row group. Its traces are one Parquet file; `row` numbers the rows of the whole input.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.labelled.columns import encoded_pictures, texts_of
from pipelines.lake.digests import digest
from pipelines.lake.storage import Storage, retrying
from pipelines.lake.tables import Columns, id_digest
from pipelines.prepare.pairs.noise import (
    Noise,
    NoiseConfig,
    PictureTrace,
    title_bits,
    title_key,
    trace_picture,
    words_of,
)
from pipelines.prepare.writing import put_table
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.image import decode_usable
from ulsdram_core.schema import DecodedProduct

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id_hash", pa.uint64()),
        ("noise", pa.string()),
        ("is_usable", pa.bool_()),
        ("picture_hi", pa.uint64()),
        ("picture_lo", pa.uint64()),
        ("title_hi", pa.uint64()),
        ("title_lo", pa.uint64()),
        ("title_words", pa.int32()),
        ("title_bits", pa.uint64()),
        ("perceptual", pa.uint64()),
        ("colours", pa.binary(48)),
        ("catalog_hi", pa.uint64()),
        ("catalog_lo", pa.uint64()),
        ("catalog_id", pa.string()),
        ("similarity", pa.float32()),
    ]
)
_NO_TRACE = PictureTrace(bytes(16), 0, bytes(48))
READ_ROWS = 256
"""Rows held in memory at once where pictures are among the columns."""
# With a buffer pyarrow reads as it goes; without one, all of a row group first.
_READ_BYTES = 1 << 20
_MODEL_ROWS = 128


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What is the same for all row groups; picklable."""

    columns: Columns
    sources: tuple[str, ...]
    noise: NoiseConfig
    catalog_column: str | None = None
    """Column with given catalogue ids; null cells are filled."""
    held_out: frozenset[str] = frozenset()
    """Product ids kept away from training, for an honest test."""
    model: Storage | None = None
    """e-CLIP model that measures how well text and picture agree."""

    def wanted(self, names: Sequence[str]) -> list[str]:
        """Return the columns to read out of those that a file has."""
        columns = self.columns
        texts = [columns.sources.get(source, source) for source in self.sources]
        optional = [*(n for n in (columns.image, columns.images) if n), self.catalog_column]
        chosen = [columns.product_id, *texts, *(name for name in optional if name in names)]
        return [name for name in chosen if name]


@dataclass(frozen=True, slots=True)
class GroupTask:
    """One row group of one input file."""

    file: Storage
    row_group: int
    first_row: int
    num_rows: int
    num_bytes: int
    """In memory, by the file's footer."""
    split: str
    traces: Storage
    """Where its traces go."""
    settings: ScanSettings = field(repr=False)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield up to READ_ROWS rows at a time, in order; all columns if none are named.

        A row group may hold far more pictures than fit in memory, so it is read page by page: of
        1 GB of pictures 127 MB were in memory, 1,080 MB without a buffer. pyarrow writes pages of
        1,024 rows, however large.
        """
        with self.file.arrow.open_input_file(self.file.path) as stream:
            found = pq.ParquetFile(stream, buffer_size=_READ_BYTES).iter_batches(
                READ_ROWS,
                row_groups=[self.row_group],
                columns=None if columns is None else list(columns),
                use_threads=False,
            )
            for batch in found:
                yield pa.Table.from_batches([batch])


def scan_group(task: GroupTask) -> int:
    """Trace the rows of a group and store the traces; returns their number."""
    traces = retrying(lambda: _trace_group(task))
    put_table(traces, task.traces)
    return traces.num_rows


def _trace_group(task: GroupTask) -> pa.Table:
    with task.file.arrow.open_input_file(task.file.path) as stream:
        names = pq.ParquetFile(stream).schema_arrow.names
    found, row = [SCHEMA.empty_table()], task.first_row
    for rows in task.batches(task.settings.wanted(names)):
        found.append(trace_rows(rows, task.settings, first_row=row))
        row += rows.num_rows
    return pa.concat_tables(found)


def trace_rows(rows: pa.Table, settings: ScanSettings, *, first_row: int = 0) -> pa.Table:
    """Return rows of a products table as rows of SCHEMA."""
    records = rows.to_pylist()
    found = [_trace_row(record, settings) for record in records]
    if settings.model is not None:
        _measure(records, found, settings)
    for place, record in enumerate(found):
        record["row"] = first_row + place
    return pa.Table.from_pylist(found, SCHEMA)


def _trace_row(record: Mapping[str, Any], settings: ScanSettings) -> dict[str, Any]:
    columns = settings.columns
    product_id = record.get(columns.product_id)
    words = words_of(" ".join(texts_of(record, columns, settings.sources).values()))
    pictures = encoded_pictures(record, (columns.image or "", columns.images or ""))
    trace: PictureTrace | None = None
    problem: str | None = "no_picture"
    for data in pictures:
        trace, problem = trace_picture(data, settings.noise)
        if problem is None:
            break
    if len(words) < settings.noise.min_words:
        problem = Noise.SHORT_TEXT.value
    if str(product_id) in settings.held_out:
        problem = Noise.HELD_OUT.value
    if product_id is None:
        problem = Noise.NULL_ID.value
    given = record.get(settings.catalog_column or "")
    shown = trace or _NO_TRACE
    return {
        "id_hash": _halves(id_digest(str(product_id)))[0],
        "noise": problem,
        "is_usable": problem is None,
        **_pair("picture", shown.exact),
        **_pair("title", title_key(words)),
        "title_words": len(words),
        "title_bits": title_bits(words),
        "perceptual": shown.perceptual,
        "colours": shown.colours,
        **_pair("catalog", bytes(16) if given is None else digest([str(given).encode()])),
        "catalog_id": None if given is None else str(given),
        "similarity": None,
    }


def _pair(name: str, data: bytes) -> dict[str, int]:
    high, low = _halves(data)
    return {f"{name}_hi": high, f"{name}_lo": low}


def _halves(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little")


def _measure(
    records: Sequence[Mapping[str, Any]], found: Sequence[dict[str, Any]], settings: ScanSettings
) -> None:
    """Fill `similarity` of the usable rows."""
    assert settings.model is not None
    embedder = _embedder(settings.model.uri, tuple(settings.model.options.items()))
    columns = (settings.columns.image or "", settings.columns.images or "")
    usable = [place for place, trace in enumerate(found) if trace["is_usable"]]
    for start in range(0, len(usable), _MODEL_ROWS):
        places = usable[start : start + _MODEL_ROWS]
        products = []
        for place in places:
            shown = encoded_pictures(records[place], columns)
            pictures, _ = decode_usable(shown, embedder.parts.config.image)
            texts = texts_of(records[place], settings.columns, settings.sources)
            products.append(DecodedProduct(str(place), texts, tuple(pictures)))
        vectors = embedder.embed(products)
        for place, score in zip(places, (vectors.text * vectors.picture).sum(1), strict=True):
            found[place]["similarity"] = float(score)


@lru_cache(maxsize=1)
def _embedder(uri: str, options: tuple[tuple[str, str], ...]) -> Embedder:
    """Return one model per process, whatever the number of row groups."""
    with Storage.of(uri, dict(options)).local_copy() as folder:
        return Embedder.load(folder)
