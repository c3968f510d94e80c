"""What makes a pair of text and picture worthless for pre-training."""

import io
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from operator import or_

import numpy as np
from PIL import Image
from pydantic import Field

from pipelines.lake.digests import digest
from ulsdram_core.errors import PictureError
from ulsdram_core.frozen import Frozen
from ulsdram_core.image import ImageConfig, decode_picture

_TRACE = ImageConfig(size=72)
# A multiple of the hash's 9 columns and of the 4 columns of colours.
_SIDE = 36
# What differs from the border by more than this, on more than this part of a row or column, is
# the product. On copies cropped by 4-8% of the demo catalogue this took recall from 0.54 to 0.69
# at 6 bits, and false pairs from 8 to none.
_BACKGROUND, _COVERED = 40, 0.03
_COLOURS = 4
# Differences of fewer grey levels are noise of the encoder on a plain background.
_FLAT = 4.0
# Scripts written without spaces: every character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


class Noise(StrEnum):
    """Why a pair is left out; besides these, the reasons why a picture cannot be used."""

    NULL_ID = "null_id"
    HELD_OUT = "held_out"
    SHORT_TEXT = "short_text"
    SMALL_PICTURE = "small_picture"
    BLANK_PICTURE = "blank_picture"
    PLACEHOLDER = "placeholder_picture"
    REPEATED = "repeated_pair"
    MISMATCH = "mismatch"


class NoiseConfig(Frozen):
    """Limits below which a pair is noise."""

    min_words: int = Field(
        2, ge=1, description="distinct words (or characters without spaces) in all texts together"
    )
    min_side: int = Field(32, ge=1, description="shorter side of a picture in pixels")
    min_contrast: float = Field(
        3.0, ge=0, description="standard deviation of the grey levels 0..255; below: blank"
    )
    placeholder_titles: int = Field(
        20, ge=2, description="different titles under one picture from which on it is a placeholder"
    )
    mismatch_share: float = Field(
        0.02, ge=0, lt=1, description="share of pairs left out for the lowest similarity to a model"
    )


@dataclass(frozen=True, slots=True)
class PictureTrace:
    """What is remembered of a picture: enough to find it again, far too little to see it."""

    exact: bytes
    """16 bytes over the encoded bytes."""
    perceptual: int
    """64 bits: where brightness rises from left to right, on 8 rows of 9 cells of the product."""
    colours: bytes
    """48 bytes: mean red, green and blue of 4 x 4 cells."""


def words_of(text: str) -> list[str]:
    """Return distinct lower-cased words and numbers, sorted, without punctuation."""
    return sorted(set(_WORD.findall(unicodedata.normalize("NFKC", text).casefold())))


def title_key(words: list[str]) -> bytes:
    """Return 16 bytes, equal for texts of equal words whatever their order."""
    return digest([word.encode(errors="replace") for word in words])


def title_bits(words: list[str]) -> int:
    """Return 64 bits of which every word sets one: bits in common tell of words in common."""
    return reduce(or_, (1 << digest([w.encode(errors="replace")])[0] % 64 for w in words), 0)


def trace_picture(data: bytes, config: NoiseConfig) -> tuple[PictureTrace | None, str | None]:
    """Return the trace of a picture, and why it cannot be used, if so."""
    try:
        pixels = decode_picture(data, _TRACE)
    except PictureError as error:
        return None, error.reason.value
    product = np.asarray(
        Image.fromarray(_crop_to_product(pixels)).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    )
    perceptual = _difference_hash(product.mean(2, dtype=np.float32))
    trace = PictureTrace(digest([data]), perceptual, _mean_colours(product))
    with Image.open(io.BytesIO(data)) as picture:
        side = min(picture.size)
    if side < config.min_side:
        return trace, Noise.SMALL_PICTURE.value
    if float(pixels.mean(2).std()) < config.min_contrast:
        return trace, Noise.BLANK_PICTURE.value
    return trace, None


def _crop_to_product(pixels: np.ndarray) -> np.ndarray:
    """Return the picture without its plain border, so that a cropped copy looks the same."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    distance = np.abs(pixels.astype(np.int16) - np.median(border, axis=0)).max(2)
    is_product = distance > _BACKGROUND
    rows = np.flatnonzero(is_product.mean(1) > _COVERED)
    columns = np.flatnonzero(is_product.mean(0) > _COVERED)
    if min(len(rows), len(columns)) < len(pixels) // 6:
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _difference_hash(grey: np.ndarray) -> int:
    """Return dHash with a dead zone, so that a plain background gives zeros and not noise."""
    small = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX))
    bits = (small[:, 1:] - small[:, :-1]) > _FLAT
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _mean_colours(pixels: np.ndarray) -> bytes:
    cell = pixels.shape[0] // _COLOURS
    cells = pixels.reshape(_COLOURS, cell, _COLOURS, cell, 3).mean((1, 3))
    return cells.round().astype(np.uint8).tobytes()
