"""MEPAVE: tab-separated `cid, sid, sentence, tagged sentence`; pictures by the cid's digits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.lines import open_lines, read_lines
from pipelines.prepare.pictures import PictureFolder
from pipelines.prepare.rows import Problem, RawProduct, RowError, check_texts
from pipelines.prepare.shards import Shard
from ulsdram_core.errors import PictureError
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import GoldSpan

# As distributed, and as copies of the benchmark have been seen to name them.
_PICTURE_ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG")


def read_mepave(shard: Shard, config: PrepareConfig) -> Iterator[RawProduct | Problem | None]:
    """Yield products of the lines that begin in the shard; None for a blank line."""
    place = config.place(config.input)
    folder = PictureFolder.of(config)
    with open_lines(place, shard.file.path) as file:
        lines = read_lines(file, start=shard.start, end=shard.end, max_bytes=config.max_line_bytes)
        for number, line in lines:
            try:
                yield _product(number, line, folder, config)
            except RowError as error:
                yield Problem(number, error.reason, str(error))


def _product(
    number: int, line: bytes | None, folder: PictureFolder | None, config: PrepareConfig
) -> RawProduct | None:
    if line is None:
        raise RowError("line_too_long", f"more than {config.max_line_bytes} bytes")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RowError(Reason.INVALID_TEXT, "not UTF-8") from error
    if not text.strip():
        return None
    parsed = parse_mepave_line(text)
    product = RawProduct(
        line=number,
        product_id=f"{parsed.cid}/{parsed.sid}",
        texts=check_texts({"title": parsed.sentence}, max_chars=config.max_chars),
        gold=list(parsed.gold),
        specs=list(dict.fromkeys((span.attribute, span.value) for span in parsed.gold)),
    )
    if folder is not None:
        _add_picture(product, parsed.picture, folder)
    return product


def _add_picture(product: RawProduct, name: str, folder: PictureFolder) -> None:
    product.num_pictures = 1
    stem = name.rpartition("/")[2].removesuffix(".jpg")
    reason: Reason = Reason.UNREACHABLE_PICTURE
    for ending in _PICTURE_ENDINGS:
        try:
            product.pictures.append(folder.read(stem + ending))
            return
        except PictureError as error:
            if error.reason != Reason.UNREACHABLE_PICTURE:
                reason = error.reason
    product.broken_pictures.append(str(reason))


TAG = re.compile(r"<(/?)([^<>/\s][^<>/]*)>")


class MepaveProblem(StrEnum):
    """Why a line cannot be used."""

    WRONG_COLUMNS = "wrong_columns"
    NO_PICTURE_NUMBER = "no_picture_number"
    UNBALANCED_TAGS = "unbalanced_tags"
    EMPTY_VALUE = "empty_value"
    SENTENCE_DIFFERS = "sentence_differs"


@dataclass(frozen=True, slots=True)
class MepaveLine:
    """One sentence about a product; several lines may share `cid`, and so the picture."""

    cid: str
    sid: str
    sentence: str
    gold: tuple[GoldSpan, ...]

    @property
    def picture(self) -> str:
        """The picture's path beside the benchmark's text files."""
        return f"product_images/{_digits(self.cid)}.jpg"


def parse_mepave_line(line: str) -> MepaveLine:
    """Read one line; RowError with its MepaveProblem for a malformed one."""
    columns = line.rstrip("\r\n").split("\t")
    if len(columns) != 4:
        raise RowError(
            MepaveProblem.WRONG_COLUMNS,
            f"found {len(columns)} columns, expected cid, sid, sentence and tagged sentence "
            "separated by tabs",
        )
    cid, sid, sentence, tagged = columns
    if not _digits(cid):
        raise RowError(
            MepaveProblem.NO_PICTURE_NUMBER, f"cid {cid!r} holds no digits to name the picture"
        )
    plain, gold = split_tags(tagged)
    if plain != sentence:
        raise RowError(
            MepaveProblem.SENTENCE_DIFFERS,
            f"the tagged sentence reads {plain!r} without its tags, expected {sentence!r}",
        )
    return MepaveLine(cid, sid, sentence, gold)


def split_tags(tagged: str) -> tuple[str, tuple[GoldSpan, ...]]:
    """Return the text without its tags, and the spans they marked as opened; tags may nest.

    A '<' that begins no tag is text.
    """
    parts: list[str] = []
    length = read = 0
    num_opened = 0
    open_tags: list[tuple[str, int, int]] = []
    bounds: list[tuple[int, int, int, str]] = []
    for match in TAG.finditer(tagged):
        parts.append(tagged[read : match.start()])
        length += len(parts[-1])
        read = match.end()
        closing, attribute = match.groups()
        if not closing:
            open_tags.append((attribute, length, num_opened))
            num_opened += 1
            continue
        if not open_tags or open_tags[-1][0] != attribute:
            raise _unbalanced(tagged)
        _, start, order = open_tags.pop()
        if start == length:
            raise RowError(MepaveProblem.EMPTY_VALUE, f"{tagged!r} marks no text")
        bounds.append((order, start, length, attribute))
    if open_tags:
        raise _unbalanced(tagged)
    plain = "".join([*parts, tagged[read:]])
    return plain, tuple(GoldSpan(name, plain[a:b], a, b) for _, a, b, name in sorted(bounds))


def _unbalanced(tagged: str) -> RowError:
    return RowError(MepaveProblem.UNBALANCED_TAGS, f"{tagged!r} opens and closes different tags")


def _digits(cid: str) -> str:
    return "".join(re.findall(r"[0-9]+", cid))
