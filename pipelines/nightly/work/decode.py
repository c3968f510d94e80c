"""Decode stage: chosen rows of Parquet files -> texts and pixels, batch by batch.

A row that cannot go to the model is settled here with its reason; nothing is dropped.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pipelines.lake.digests import as_hex
from pipelines.lake.pictures import PictureReader
from pipelines.lake.storage import Storage, retrying
from pipelines.nightly.plan.chunks import Chunk, ChunkConfig, Part
from pipelines.nightly.plan.rows import FileReader, RawRows, RowSettings, is_corruption
from pipelines.nightly.work.model import ModelFacts
from ulsdram_core.errors import PictureError
from ulsdram_core.image import decode_picture, picture_digest
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import DecodedProduct, Extraction, Status

_FETCHES_AT_ONCE = 8
_NOT_FETCHED = frozenset({Reason.UNREACHABLE_PICTURE, Reason.REFUSED_ADDRESS})


class InputChangedError(RuntimeError):
    """A file is not what the plan saw any more; the plan has to be remade."""


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What the decode stage needs to know; picklable."""

    rows: RowSettings
    facts: ModelFacts
    chunks: ChunkConfig
    pictures: PictureReader


@dataclass(slots=True)
class DecodedBatch:
    """Rows of one model call. `settled` rows need no model; `hashes` has one per input row."""

    chunk: Chunk
    rows: list[DecodedProduct] = field(default_factory=list)
    row_hashes: list[str] = field(default_factory=list)
    settled: list[Extraction] = field(default_factory=list)
    settled_hashes: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0
    bytes_read: int = 0
    broken_pictures: int = 0


def num_batches(chunk: Chunk, settings: DecodeSettings) -> int:
    """How many batches `decode_chunk` returns."""
    return -(-len(chunk) // settings.chunks.batch_rows)


def decode_chunk(chunk: Chunk, settings: DecodeSettings) -> list[DecodedBatch]:
    """Read and decode; equal pictures of the chunk are decoded once and share one array."""
    started = time.process_time()
    raw, bytes_read = [], 0
    for part in chunk.parts:
        rows, stored = retrying(partial(read_part, part, settings.rows))
        raw.append(rows)
        bytes_read += stored
    pictures = _Pictures(settings)
    decoded = [item for rows in raw for item in _decode_rows(rows, settings, pictures)]
    batches = []
    size = settings.chunks.batch_rows
    for i, piece in enumerate(chunk.slices(size)):
        batches.append(_batch(piece, decoded[i * size : (i + 1) * size]))
    batches[0].cpu_seconds = time.process_time() - started
    batches[0].bytes_read = bytes_read
    batches[0].broken_pictures = pictures.num_broken
    return batches


def _batch(chunk: Chunk, items: Sequence[tuple[DecodedProduct | Extraction, str]]) -> DecodedBatch:
    batch = DecodedBatch(chunk)
    for item, input_hash in items:
        if isinstance(item, DecodedProduct):
            batch.rows.append(item)
            batch.row_hashes.append(input_hash)
        else:
            batch.settled.append(item)
            batch.settled_hashes.append(input_hash)
    return batch


def read_part(part: Part, settings: RowSettings) -> tuple[RawRows, int]:
    """Rows as stored and the bytes that were read for them."""
    try:
        with FileReader(part.data, part.file, settings) as reader:
            rows = reader.take(part.row_group, part.rows)
            return rows, reader.stored_bytes(part.row_group, is_key_only=False)
    except (FileNotFoundError, IndexError) as error:
        raise InputChangedError(f"{part.file.uri}: {error}") from error
    except Exception as error:
        if is_corruption(error):
            raise InputChangedError(f"{part.file.uri}: {error}") from error
        raise


def _decode_rows(
    raw: RawRows, settings: DecodeSettings, pictures: "_Pictures"
) -> list[tuple[DecodedProduct | Extraction, str]]:
    hashes = as_hex(raw.hashes)
    pictures.fetch(raw)
    return [(_decode_row(raw, i, settings, pictures), hashes[i]) for i in range(len(raw.ids))]


def _decode_row(
    raw: RawRows, i: int, settings: DecodeSettings, pictures: "_Pictures"
) -> DecodedProduct | Extraction:
    product_id = _id_text(raw.ids[i])
    if raw.wrong_text:
        return Extraction(product_id, Status.QUARANTINED, Reason.WRONG_TYPE)
    try:
        texts = {
            source: text.decode()
            for source, text in zip(settings.rows.sources, raw.texts[i], strict=True)
            if text is not None
        }
        category = raw.categories[i]
        name = None if category is None else category.decode()
    except UnicodeDecodeError:
        return Extraction(product_id, Status.QUARANTINED, Reason.INVALID_TEXT)
    found, reason = pictures.of(raw, i)
    return DecodedProduct(product_id, texts, found, name, reason)


def _id_text(product_id: bytes | None) -> str:
    """A planned row has a usable id; another one means that the file was replaced."""
    try:
        return (product_id or b"").decode()
    except UnicodeDecodeError as error:
        raise InputChangedError("a planned row has lost its id") from error


class _Pictures:
    """Decodes pictures, each distinct one once; remembers why others have none."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._image = settings.facts.image
        self._reader = settings.pictures
        self._options = settings.rows.options
        self._decoded: dict[str, np.ndarray | Reason] = {}
        self._fetched: dict[bytes, bytes | Reason] = {}
        self.num_broken = 0  # counted in every row that has one

    def fetch(self, raw: RawRows) -> None:
        """Read what is kept as files, several at a time."""
        uris = {uri for row in raw.picture_uris for uri in row} - self._fetched.keys()
        if not uris or self._image is None:
            return
        with ThreadPoolExecutor(min(_FETCHES_AT_ONCE, len(uris))) as pool:
            folder = Storage.of(raw.folder, self._options)
            found = pool.map(lambda uri: self._fetch(uri, folder), uris)
            self._fetched.update(zip(uris, found, strict=True))

    def of(self, raw: RawRows, i: int) -> tuple[tuple[np.ndarray, ...], Reason | None]:
        """Return a row's usable pictures, and why one of them is missing.

        Where some are usable only one that could not be fetched is missed: later it may be there.
        """
        if self._image is None:
            return (), None
        encoded: list[bytes | Reason] = list(raw.pictures[i])
        encoded += [self._fetched[uri] for uri in raw.picture_uris[i]]
        if not encoded:
            return (), Reason.WRONG_TYPE if raw.wrong_picture else Reason.NO_PICTURE
        decoded = [item if isinstance(item, Reason) else self._decode(item) for item in encoded]
        usable = tuple(item for item in decoded if not isinstance(item, Reason))
        reasons = [item for item in decoded if isinstance(item, Reason)]
        self.num_broken += len(reasons)
        missed = reasons if not usable else [item for item in reasons if item in _NOT_FETCHED]
        if Reason.UNREACHABLE_PICTURE in missed:
            return usable, Reason.UNREACHABLE_PICTURE  # the one that a replay asks for again
        return usable, missed[0] if missed else None

    def _decode(self, data: bytes) -> np.ndarray | Reason:
        assert self._image is not None
        key = picture_digest(data)
        if key not in self._decoded:
            try:
                self._decoded[key] = decode_picture(data, self._image)
            except PictureError as error:
                self._decoded[key] = error.reason
        return self._decoded[key]

    def _fetch(self, uri: bytes, folder: Storage) -> bytes | Reason:
        try:
            return self._reader.read(uri.decode(errors="replace"), folder)
        except PictureError as error:
            return error.reason
