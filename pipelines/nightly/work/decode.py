"""Decode stage: a range of the plan's work -> texts and pixels, batch by batch.

A row that cannot go to the model is settled here with its reason; nothing is dropped.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from pipelines.lake.digests import as_hex
from pipelines.lake.pictures import PictureReader
from pipelines.lake.source import InputChangedError, SpoiledError
from pipelines.lake.storage import Storage, is_transient, retrying
from pipelines.nightly.plan.chunks import ChunkConfig, Part, Range, WorkList
from pipelines.nightly.plan.rows import FileReader, RawRows, RowSettings
from pipelines.nightly.work.model import ModelFacts
from pipelines.nightly.work.staging import Account
from ulsdram_core.errors import PictureError
from ulsdram_core.image import decode_picture, picture_digest
from ulsdram_core.reasons import NOT_FETCHED, Reason
from ulsdram_core.schema import DecodedProduct, Extraction, Status

_FETCHES_AT_ONCE = 8
_READ_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What the decode stage needs to know; picklable."""

    rows: RowSettings
    facts: ModelFacts
    chunks: ChunkConfig
    pictures: PictureReader


@dataclass(slots=True)
class DecodedBatch:
    """Rows of one model call: positions `start` to `end` of the plan's work.

    `settled` rows need no model. `changed` says why these rows could not be read.
    """

    start: int
    end: int
    rows: list[DecodedProduct] = field(default_factory=list)
    row_hashes: list[str] = field(default_factory=list)
    settled: list[Extraction] = field(default_factory=list)
    settled_hashes: list[str] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    changed: str = ""


def decode_range(
    work: WorkList, piece: Range, settings: DecodeSettings, *, most: int = 0
) -> Iterator[DecodedBatch]:
    """Read and decode a range of the work, a batch at a time; each row group is read once.

    Equal pictures of a batch are decoded once and share one array. `most` bounds the rows of a
    batch (0: as configured).
    """
    start, end = piece
    try:
        filler = _Filler(start, settings, most or settings.chunks.batch_rows)
        for part in work.parts(start, end):
            for raw, stored in _read_part(part, settings.rows):
                yield from filler.add(raw, stored)
        yield from filler.rest()
    except InputChangedError as error:
        yield DecodedBatch(filler.start, end, changed=str(error))


class _Filler:
    """Cuts decoded rows into batches."""

    def __init__(self, start: int, settings: DecodeSettings, most: int) -> None:
        self.start = start
        self._settings = settings
        self._most = most
        self._bytes_read = 0
        self._began = time.process_time()
        self._pictures = _Pictures(settings)
        self._begin()

    def _begin(self) -> None:
        self._batch = DecodedBatch(self.start, self.start)
        self._pictures.begin()

    def add(self, raw: RawRows, bytes_read: int) -> Iterator[DecodedBatch]:
        """Take rows in; give back what is full."""
        self._bytes_read += bytes_read
        self._pictures.fetch(raw)
        hashes = as_hex(raw.hashes)
        for i in range(len(raw.ids)):
            item = _decode_row(raw, i, self._settings, self._pictures)
            if isinstance(item, DecodedProduct):
                self._batch.rows.append(item)
                self._batch.row_hashes.append(hashes[i])
            else:
                self._batch.settled.append(item)
                self._batch.settled_hashes.append(hashes[i])
            self._batch.end += 1
            if self._is_full():
                yield from self.rest()

    def rest(self) -> Iterator[DecodedBatch]:
        """Yield what is there, full or not."""
        batch = self._batch
        if batch.end == batch.start:
            return
        now = time.process_time()
        batch.account = Account(
            decode_seconds=now - self._began,
            bytes_read=self._bytes_read,
            broken_pictures=self._pictures.num_broken,
        )
        self._bytes_read, self.start = 0, batch.end
        self._begin()
        yield batch
        self._began = time.process_time()

    def _is_full(self) -> bool:
        size = self._batch.end - self._batch.start
        limit = self._settings.chunks.batch_bytes
        return size >= self._most or self._pictures.num_bytes >= limit


def _read_part(part: Part, settings: RowSettings) -> Iterator[tuple[RawRows, int]]:
    """Yield rows as stored and the bytes read for them; begins again where it was cut off."""
    taken, attempts = 0, 0
    while taken < len(part.rows):
        try:
            for rows, stored in _stream_part(part, settings, taken):
                taken += len(rows.ids)
                yield rows, stored
        except Exception as error:
            attempts += 1
            if attempts == _READ_ATTEMPTS or not is_transient(error):
                raise
            time.sleep(0.2 * 2**attempts)


def _stream_part(part: Part, settings: RowSettings, taken: int) -> Iterator[tuple[RawRows, int]]:
    """Yield rows as stored; those of a replaced file have other hashes than were planned."""
    try:
        with FileReader(part.data, part.file, settings) as reader:
            stored = reader.stored_bytes(part.row_group, is_key_only=False)
            for rows in reader.take(part.row_group, part.rows[taken:]):
                yield rows, stored
                stored = 0
            retrying(reader.check_unchanged)
    except (FileNotFoundError, SpoiledError) as error:
        raise InputChangedError(f"{part.file.uri}: {error}") from error


def key_of(work: WorkList, position: int, settings: DecodeSettings) -> tuple[str, str]:
    """Return id and hash of one row, without decoding anything of it."""
    (part,) = work.parts(position, position + 1)
    raw, _ = next(_read_part(part, settings.rows))
    return _id_text(raw.ids[0]), as_hex(raw.hashes)[0]


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
    """Return a planned row has a usable id; another one means that the file was replaced."""
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
        self._fetched: dict[bytes, bytes | Reason] = {}
        self.begin()

    def begin(self) -> None:
        """Begin a new batch: it shares no pixels with the one before."""
        self._decoded: dict[str, np.ndarray | Reason] = {}
        self.num_broken = 0  # counted in every row that has one
        self.num_bytes = 0  # of distinct pixels

    def fetch(self, raw: RawRows) -> None:
        """Read what is kept as files, several at a time; what other rows named is forgotten."""
        wanted = {uri for row in raw.picture_uris for uri in row}
        self._fetched = {uri: self._fetched[uri] for uri in wanted & self._fetched.keys()}
        uris = wanted - self._fetched.keys()
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
        missed = reasons if not usable else [item for item in reasons if item in NOT_FETCHED]
        if Reason.UNREACHABLE_PICTURE in missed:
            return usable, Reason.UNREACHABLE_PICTURE  # the one that may end by itself
        return usable, missed[0] if missed else None

    def _decode(self, data: bytes) -> np.ndarray | Reason:
        assert self._image is not None
        key = picture_digest(data)
        if key not in self._decoded:
            try:
                pixels = decode_picture(data, self._image)
                self._decoded[key] = pixels
                self.num_bytes += pixels.nbytes
            except PictureError as error:
                self._decoded[key] = error.reason
        return self._decoded[key]

    def _fetch(self, uri: bytes, folder: Storage) -> bytes | Reason:
        try:
            return self._reader.read(uri.decode(errors="replace"), folder)
        except PictureError as error:
            return error.reason
