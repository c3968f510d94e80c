"""Encoded picture bytes -> square uint8 RGB arrays; only PictureError rises, whatever the bytes.

Training and extraction use this one decoder: scaled JPEG decoding changes pixels slightly.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, WebPImagePlugin  # noqa: F401  (registers WebP, only WebP)
from pydantic import Field

from ulsdram_core.errors import PictureError
from ulsdram_core.frozen import Frozen
from ulsdram_core.reasons import Reason

_log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Above this many pixels Pillow itself refuses to open a picture (twice its warning threshold).
_PILLOW_MAX_PIXELS = 178_956_970
# The most a JPEG, WebP or GIF can declare; a PNG one pixel wide and millions high is an attack.
_MAX_SIDE = 65_535
# A progressive JPEG may repeat near-empty scans, each of which walks every pixel (0.8 ns each):
# without this limit 20 MB of them take minutes. Ten scans are usual.
_MAX_SCANNED_PIXELS = 2_500_000_000
# Headers are walked part by part in Python at 1 to 8 microseconds each.
_MAX_HEADER_PARTS = 100_000
_JPEG_START = b"\xff\xd8"
# Within compressed data 0xff is always followed by zero or a restart marker (d0 to d7).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_BMP_RUN_LENGTH = (1, 2)
# Pictures are first shrunk by whole factors to at least this many times the final side.
_REDUCING_GAP = 1.5

_EXIF_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageConfig(Frozen):
    """How pictures are decoded; normalisation belongs to the image encoder."""

    size: int = Field(default=224, ge=1, le=4096)
    """Side of the square every picture is squashed to, in pixels."""
    max_pixels: int = Field(default=50_000_000, ge=1, le=_PILLOW_MAX_PIXELS)
    """Pictures of more pixels (width x height) are refused before they are decoded."""
    max_bytes: int = Field(default=20_000_000, ge=1)
    """Pictures of more encoded bytes are refused."""


def decode_picture(data: bytes | bytearray | memoryview, config: ImageConfig) -> NDArray[np.uint8]:
    """Return RGB pixels [size, size, 3], upright, on white, squashed to a square.

    The first frame of an animation counts. Raises PictureError and nothing else.
    """
    raw = _checked_bytes(data, config)
    try:
        return _decode(raw, config)
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError("decoding ran out of memory", reason=Reason.OUT_OF_MEMORY) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(f"picture has too many pixels: {error}") from error
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        message = f"found {len(raw)} bytes that do not decode as {', '.join(FORMATS)}: {error!r}"
        raise PictureError(message, reason=Reason.UNDECODABLE_PICTURE) from error


def decode_usable(
    pictures: Iterable[bytes], config: ImageConfig
) -> tuple[list[NDArray[np.uint8]], list[Reason]]:
    """Return the pixels of the pictures that can be used, and why the others cannot."""
    found: list[NDArray[np.uint8]] = []
    reasons: list[Reason] = []
    for data in pictures:
        try:
            found.append(decode_picture(data, config))
        except PictureError as error:
            reasons.append(error.reason)
    return found, reasons


def picture_digest(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of the encoded bytes in hex; equal for byte-identical pictures."""
    return hashlib.sha256(data).hexdigest()


def _checked_bytes(data: object, config: ImageConfig) -> bytes:
    # A null column read through pandas is NaN.
    if data is None or (isinstance(data, float) and math.isnan(data)):
        raise PictureError("found no picture", reason=Reason.NO_PICTURE)
    if not isinstance(data, bytes | bytearray | memoryview):
        message = f"found a picture of type {type(data).__name__}, expected encoded bytes"
        raise PictureError(message, reason=Reason.WRONG_TYPE)
    raw = bytes(data)
    if not raw:
        raise PictureError("found zero bytes, expected a picture", reason=Reason.NO_PICTURE)
    if len(raw) > config.max_bytes:
        raise _too_large(f"found {len(raw)} bytes, expected at most {config.max_bytes}")
    return raw


def _decode(raw: bytes, config: ImageConfig) -> NDArray[np.uint8]:
    _check_header_parts(raw)
    with Image.open(io.BytesIO(raw), formats=FORMATS) as picture:
        _check_cost(picture, raw, config)
        side = int(config.size * _REDUCING_GAP)
        picture.draft(None, (side, side))  # JPEG only: decode at 1/2, 1/4 or 1/8
        square = _eight_bits(picture).resize(
            (config.size, config.size), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP
        )
        orientation = _orientation(picture)
    # Squashing to a square and turning by right angles commute, so the small one is turned.
    if orientation in _TRANSPOSE:
        square = square.transpose(_TRANSPOSE[orientation])
    return np.array(_on_white(square), dtype=np.uint8)


def _check_cost(picture: Image.Image, raw: bytes, config: ImageConfig) -> None:
    """Refuse, before decoding, what would take too much memory or time."""
    width, height = picture.size
    found = f"found {width} x {height} pixels"
    if width * height > config.max_pixels:
        raise _too_large(f"{found}, expected at most {config.max_pixels} in total")
    if max(width, height) > _MAX_SIDE:
        raise _too_large(f"{found}, expected at most {_MAX_SIDE} a side")
    if raw.startswith(_JPEG_START):
        max_scans = max(_MAX_SCANNED_PIXELS // (width * height), 1)
        # The plain count errs on the high side, within metadata and after the picture.
        if raw.count(b"\xff\xda") > max_scans and _walk_jpeg(raw, max_scans).scans > max_scans:
            raise _too_large(f"{found} in more than {max_scans} scans, expected fewer")
    # Pillow unpacks run-length BMP in Python, 10 s for 20 MB.
    if picture.format == "BMP" and picture.info.get("compression") in _BMP_RUN_LENGTH:
        message = "found a run-length compressed BMP, expected an uncompressed one"
        raise PictureError(message, reason=Reason.UNDECODABLE_PICTURE)


def _check_header_parts(raw: bytes) -> None:
    """Refuse pictures whose metadata is made of very many tiny parts."""
    if raw.startswith(_JPEG_START):
        num_parts = _walk_jpeg(raw, 0).header_parts
    elif raw.startswith(b"\x89PNG"):
        num_parts = _num_png_parts(raw)
    else:
        return
    if num_parts > _MAX_HEADER_PARTS:
        message = f"found more than {_MAX_HEADER_PARTS} header parts, expected a plain picture"
        raise PictureError(message, reason=Reason.UNDECODABLE_PICTURE)


class _JpegParts(NamedTuple):
    header_parts: int  # segments, fill and junk bytes up to the first scan
    scans: int


def _walk_jpeg(raw: bytes, max_scans: int) -> _JpegParts:
    """Count the parts of a JPEG up to its end, or until there are more than `max_scans` scans."""
    position, header_parts, scans = len(_JPEG_START), 0, 0
    while header_parts <= _MAX_HEADER_PARTS and scans <= max_scans:
        match = _JPEG_MARKER.search(raw, position)
        if match is None or match[0] == b"\xff\xd9":
            break
        if not scans:
            header_parts += 1 + match.start() - position
        scans += match[0] == b"\xff\xda"
        position = match.end() + int.from_bytes(raw[match.end() : match.end() + 2], "big")
    return _JpegParts(header_parts, scans)


def _num_png_parts(raw: bytes) -> int:
    position, count = 8, 0
    while position < len(raw) and count <= _MAX_HEADER_PARTS:
        position += 12 + int.from_bytes(raw[position : position + 4], "big")
        count += 1
    return count


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Return the picture in a mode whose pixels can be averaged."""
    picture.load()
    if picture.mode.startswith("I"):
        # The high byte, as Pillow itself does for 16-bit colour.
        high = np.asarray(picture).clip(0, 65535).astype(np.uint16) >> 8
        return Image.fromarray(high.astype(np.uint8))
    if picture.has_transparency_data and picture.mode not in ("LA", "RGBA"):
        return picture.convert("RGBA")
    if picture.mode in ("1", "P"):
        return picture.convert("L" if picture.mode == "1" else "RGB")
    return picture


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode not in ("LA", "RGBA"):
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    return white.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where the metadata is absent or junk."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except _EXIF_ERRORS as error:  # junk metadata must not cost the picture
        _log.debug("ignored unreadable EXIF: %r", error)
        return 1


def _too_large(message: str) -> PictureError:
    return PictureError(message, reason=Reason.PICTURE_TOO_LARGE)
