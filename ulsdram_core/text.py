"""Raw product texts to the windows an encoder reads; every offset is exact in the raw text."""

# P pieces of a window (with [CLS] and [SEP]), U units of a window

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from tokenizers import Tokenizer, pre_tokenizers

from ulsdram_core.errors import UlsdramError
from ulsdram_core.frozen import Frozen
from ulsdram_core.reasons import Reason

if TYPE_CHECKING:
    # Seconds to import, and this module is used where no model is.
    from transformers import PreTrainedTokenizerFast

UnitKind = Literal["word", "character"]

CJK = (
    "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f\U00030000-\U000323af"
)
CHARACTER = re.compile(r"\S")
ASCII_WORD = re.compile(r"[A-Za-z0-9]+|\S")
MAX_UNIT_PIECES = 16
# No tokenizer yields its first 16 pieces from beyond this; it bounds the work on hostile input.
MAX_UNIT_CHARS = 256
CACHE_SIZE = 200_000


class TextError(UlsdramError):
    """A product's text cannot be encoded; `reason` says why in one of the enumerated words."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class TextConfig(Frozen):
    """How texts become windows."""

    sources: tuple[str, ...] = Field(
        ("title",), min_length=1, description="Text columns, in encoding order."
    )
    unit: UnitKind = Field(
        "word", description="What one tag covers: a word (or one CJK character), or a character."
    )
    max_pieces: int = Field(
        128, ge=4, description="Most pieces in a window, [CLS] and [SEP] included."
    )
    overlap_pieces: int = Field(
        32,
        ge=0,
        description="Pieces a window sees to the right of what it owns, so that a shorter span "
        "is never cut; it sees half as many to the left, as context.",
    )
    max_chars: int = Field(100_000, ge=1, description="Most characters in one text column.")

    @property
    def context_pieces(self) -> int:
        """Pieces a window sees to the left of what it owns."""
        return self.overlap_pieces // 2

    @property
    def max_unit_pieces(self) -> int:
        """Pieces of one unit beyond which it is truncated, so that every window advances."""
        room = self.max_pieces - 2 - self.overlap_pieces - self.context_pieces
        return min(MAX_UNIT_PIECES, room)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.sources)) != len(self.sources):
            raise ValueError(f"sources {self.sources} repeat a name; name each column once")
        if self.max_unit_pieces < 1:
            raise ValueError(
                f"overlap_pieces {self.overlap_pieces} leaves no room in max_pieces "
                f"{self.max_pieces}; expected 1.5 * overlap_pieces + 3 <= max_pieces"
            )
        return self


@dataclass(slots=True)
class Window:
    """A slice of a product's units that fits the encoder.

    `piece_ids`, `piece_types` are int64[P]; `unit_piece` int64[U] is each unit's first piece;
    `unit_source` int16[U] indexes TextConfig.sources; `unit_start`, `unit_end` int32[U] are
    character offsets in that source. `first_unit` and `owned` count the product's units: of the
    spans tagged here only those whose first unit is owned count, so that each is reported once.
    """

    piece_ids: np.ndarray
    piece_types: np.ndarray
    unit_piece: np.ndarray
    unit_source: np.ndarray
    unit_start: np.ndarray
    unit_end: np.ndarray
    first_unit: int
    owned: tuple[int, int]

    @property
    def num_units(self) -> int:
        """U, the units that the window sees."""
        return len(self.unit_start)


class TextProcessor:
    """Encodes texts with one tokenizer; a unit's pieces do not depend on its neighbours.

    Layout: [CLS] source0 [SEP] source1 [SEP]. Piece types are 0 for the first of
    `config.sources` and 1 for the others (0 for tokenizers without types).
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", config: TextConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._cls = _special_id(tokenizer, "cls", "bos")
        self._sep = _special_id(tokenizer, "sep", "eos")
        self._unk = _special_id(tokenizer, "unk", "pad")
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._backend = _bare_backend(tokenizer)
        self._spaced = _is_space_sensitive(self._backend)
        self._cache: dict[str, list[int]] = {}

    def __reduce__(self) -> tuple[object, ...]:
        # The cache is rebuilt rather than shipped to every worker.
        return TextProcessor, (self.tokenizer, self.config)

    def encode(self, texts: Mapping[str, str]) -> list[Window]:
        """Return windows over all units of the configured sources, in order; [] if there are none.

        Raises TextError (TEXT_TOO_LONG) when one source is longer than `max_chars`.
        """
        flat: list[int] = []
        pieces: list[int] = []
        spans: list[tuple[int, int]] = []
        counts: list[int] = []
        separators: list[int] = []
        for source in self.config.sources:
            text = texts.get(source)
            known = len(spans)
            if text:
                self._add_source(source, text, flat, pieces, spans)
            counts.append(len(spans) - known)
            if counts[-1]:
                flat.append(self._sep)
            separators.append(len(flat))
        if not spans:
            return []
        layout = self._layout(flat, pieces, spans, counts, separators)
        if len(flat) < self.config.max_pieces:
            return [layout]
        return self._slice(layout)

    def _add_source(
        self,
        source: str,
        text: str,
        flat: list[int],
        pieces: list[int],
        spans: list[tuple[int, int]],
    ) -> None:
        """Append one source's pieces, first-piece positions and offsets."""
        if len(text) > self.config.max_chars:
            raise TextError(
                f"{source} has {len(text)} characters, expected at most "
                f"{self.config.max_chars}; shorten it or raise text.max_chars",
                Reason.TEXT_TOO_LONG,
            )
        known = self._cache.get
        for match in _pattern_for(text, self.config.unit).finditer(text):
            span = match.span()
            unit = match.group()
            if self._spaced and (span[0] == 0 or text[span[0] - 1].isspace()):
                unit = " " + unit
            pieces.append(len(flat))
            flat += known(unit) or self._unit_ids(unit)
            spans.append(span)

    def _unit_ids(self, unit: str) -> list[int]:
        """Return piece ids of a unit not in the cache: at least one, at most `max_unit_pieces`."""
        text = _replace_surrogates(unit[:MAX_UNIT_CHARS])
        ids = self._backend.encode(text, add_special_tokens=False).ids
        ids = ids[: self.config.max_unit_pieces] or [self._unk]
        if len(unit) <= MAX_UNIT_CHARS:
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            self._cache[unit] = ids
        return ids

    def _layout(
        self,
        flat: list[int],
        pieces: list[int],
        spans: list[tuple[int, int]],
        counts: list[int],
        separators: list[int],
    ) -> Window:
        """Return the one window that sees all units, however long it gets."""
        offsets = np.array(spans, dtype=np.int32)
        piece_types = np.zeros(len(flat) + 1, dtype=np.int64)
        unit_source = np.zeros(len(spans), dtype=np.int16)
        if len(counts) > 1:
            unit_source = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
            if self._has_types:
                piece_types[separators[0] + 1 :] = 1
        return Window(
            piece_ids=np.array([self._cls, *flat], dtype=np.int64),
            piece_types=piece_types,
            unit_piece=np.array(pieces, dtype=np.int64) + 1,
            unit_source=unit_source,
            unit_start=offsets[:, 0],
            unit_end=offsets[:, 1],
            first_unit=0,
            owned=(0, len(spans)),
        )

    def _slice(self, layout: Window) -> list[Window]:
        """Cut a layout that is too long; what is [SEP] between sources stays between them."""
        starts = layout.unit_piece
        # Where each unit's pieces end: the next unit's start, less the [SEP] between sources.
        ends = np.append(starts[1:], len(layout.piece_ids) - 1)
        ends[:-1] -= np.diff(layout.unit_source) != 0
        windows, owned = [], 0
        while owned < len(starts):
            first = int(np.searchsorted(starts, starts[owned] - self.config.context_pieces))
            room = starts[first] + self.config.max_pieces - 2
            last = int(np.searchsorted(ends, room, side="right"))
            next_owned = last
            if last < len(starts):
                reach = ends[last - 1] - self.config.overlap_pieces
                next_owned = min(last, int(np.searchsorted(starts, reach, side="right")))
            assert next_owned > owned, "max_unit_pieces leaves room for at least one owned unit"
            pieces = slice(int(starts[first]), int(ends[last - 1]))
            windows.append(self._cut(layout, slice(first, last), pieces, (owned, next_owned)))
            owned = next_owned
        return windows

    def _cut(self, layout: Window, units: slice, pieces: slice, owned: tuple[int, int]) -> Window:
        ids, types = layout.piece_ids[pieces], layout.piece_types[pieces]
        return Window(
            piece_ids=np.concatenate(([self._cls], ids, [self._sep])),
            piece_types=np.concatenate(([0], types, types[-1:])),
            unit_piece=layout.unit_piece[units] - pieces.start + 1,
            unit_source=layout.unit_source[units],
            unit_start=layout.unit_start[units],
            unit_end=layout.unit_end[units],
            first_unit=units.start,
            owned=owned,
        )


def find_units(text: str, unit: UnitKind = "word") -> list[tuple[int, int]]:
    """Return half-open character offsets of the text's units, in order; white space is in none."""
    return [match.span() for match in _pattern_for(text, unit).finditer(text)]


def _pattern_for(text: str, unit: UnitKind) -> re.Pattern[str]:
    if unit == "character":
        return CHARACTER
    # Same units as the full pattern, 4 times faster.
    return ASCII_WORD if text.isascii() else _word_pattern()


@cache
def _word_pattern() -> re.Pattern[str]:
    """Return the words: runs of letters, digits and marks; other characters and CJK stand alone.

    Format characters (soft hyphen, zero-width joiner) inside a run belong to it.
    """
    marks, formats = _character_class("M"), _character_class("Cf")
    run = rf"(?:[^\W_{CJK}]++|[{marks}]++)++"
    return re.compile(rf"[{CJK}]|{run}(?:[{formats}]++{run})*+|\S")


@cache
def _character_class(category: str) -> str:
    """Return regex ranges of the characters whose Unicode category starts with `category`."""
    # Planes 2 to 13 hold ideographs or nothing.
    planes = (range(0x20000), range(0xE0000, 0xE0200))
    codes = [
        code
        for plane in planes
        for code in plane
        if unicodedata.category(chr(code)).startswith(category)
    ]
    breaks = [i for i, (a, b) in enumerate(pairwise(codes), start=1) if b != a + 1]
    runs = zip([0, *breaks], [*breaks, len(codes)], strict=True)
    return "".join(f"\\U{codes[a]:08x}-\\U{codes[b - 1]:08x}" for a, b in runs)


def is_unicode(text: str) -> bool:
    """Return whether a table can store the text: halves of surrogate pairs come in through JSON."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _replace_surrogates(text: str) -> str:
    """Return lone surrogates, which no tokenizer takes, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _special_id(tokenizer: "PreTrainedTokenizerFast", *names: str) -> int:
    """Return the id of the first special token that the tokenizer has."""
    for name in names:
        found = getattr(tokenizer, f"{name}_token_id")
        if found is not None:
            return int(found)
    raise ValueError(f"the tokenizer has no {names[0]} token; use a BERT-family tokenizer")


def _bare_backend(tokenizer: "PreTrainedTokenizerFast") -> Tokenizer:
    """Return a copy that neither truncates, pads nor adds a space; saved tokenizers often do."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        backend.pre_tokenizer.add_prefix_space = False
    return backend


def _is_space_sensitive(backend: Tokenizer) -> bool:
    """Return whether a word's pieces tell if a space came before it, as in byte-level BPE."""
    bare, spaced = (backend.encode(text, add_special_tokens=False).ids for text in ("a", " a"))
    return bool(bare != spaced)


def owned_slice(window: Window) -> slice:
    """Return the window's owned units as a slice of its own arrays."""
    return slice(window.owned[0] - window.first_unit, window.owned[1] - window.first_unit)


def product_units(windows: Sequence[Window]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source, start and end of each of the product's units: (int16[V], int32[V], ...)."""
    cuts = [(window, owned_slice(window)) for window in windows]
    if not cuts:
        return np.zeros(0, np.int16), np.zeros(0, np.int32), np.zeros(0, np.int32)
    return (
        np.concatenate([window.unit_source[cut] for window, cut in cuts]),
        np.concatenate([window.unit_start[cut] for window, cut in cuts]),
        np.concatenate([window.unit_end[cut] for window, cut in cuts]),
    )
