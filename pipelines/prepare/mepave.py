"""MEPAVE: tab-separated `cid, sid, sentence, tagged sentence`; pictures by the cid's digits."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.lines import open_lines, read_lines
from pipelines.prepare.pictures import PictureFolder
from pipelines.prepare.rows import Problem, RawProduct, RowError, check_texts
from pipelines.prepare.shards import Shard
from ulsdram_core.errors import PictureError
from ulsdram_core.mepave import MepaveError, parse_mepave_line
from ulsdram_core.reasons import Reason

# As distributed, and as copies of the benchmark have been seen to name them.
_PICTURE_ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG")


def read_mepave(shard: Shard, config: PrepareConfig) -> Iterator[RawProduct | Problem | None]:
    """Products of the lines that begin in the shard; None for a blank line."""
    place = config.place(config.input)
    folder = PictureFolder(config.place(config.images)) if config.images else None
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
    try:
        parsed = parse_mepave_line(text)
    except MepaveError as error:
        raise RowError(error.problem, str(error)) from error
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
