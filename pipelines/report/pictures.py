"""Pictures for pages: decoded under the limits of extraction, made small, encoded anew."""

import base64
import io
from typing import NamedTuple

from PIL import ExifTags, Image

from ulsdram_core.errors import PictureError
from ulsdram_core.image import ImageConfig, decode_picture

# What Pillow raises over metadata that is not what it says.
_JUNK = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError)
_TURNED = (5, 6, 7, 8)


class Thumbnail(NamedTuple):
    """A small picture as a data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(data: bytes, *, side: int) -> Thumbnail | None:
    """Return a picture of at most `side` x `side` pixels; None if it cannot be decoded.

    The bytes that came in never leave again: what was hidden in them stays behind.
    """
    try:
        pixels = decode_picture(data, ImageConfig(size=side))
    except PictureError:
        return None
    width, height = _upright_size(data)
    scale = min(1.0, side / max(width, height))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if shape != picture.size:
        picture = picture.resize(shape, Image.Resampling.BILINEAR)
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *shape)


def _upright_size(data: bytes) -> tuple[int, int]:
    """Return width and height as seen; decoding has already accepted the picture."""
    with Image.open(io.BytesIO(data)) as picture:
        try:
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
        except _JUNK:
            turned = False
        width, height = picture.size
    return (height, width) if turned else (width, height)
