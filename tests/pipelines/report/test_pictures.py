"""Thumbnails: small, upright, without anything of the original file."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipelines.report.pictures import thumbnail


def encoded(width: int, height: int, *, kind: str = "PNG", **options) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def opened(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    ("shape", "expected"), [((400, 200), (64, 32)), ((30, 300), (6, 64)), ((9, 9), (9, 9))]
)
def test_keeps_the_shape_within_the_side(shape, expected):
    found = thumbnail(encoded(*shape), side=64)
    assert (found.width, found.height) == expected == opened(found.uri).size


def test_turned_pictures_stand_upright_and_metadata_goes():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret"
    found = thumbnail(encoded(80, 40, kind="JPEG", exif=exif), side=40)
    picture = opened(found.uri)
    assert picture.size == (20, 40)
    assert not picture.getexif()
    assert b"secret" not in base64.b64decode(found.uri.partition(",")[2])
    top, bottom = picture.getpixel((10, 2)), picture.getpixel((10, 37))
    assert min(top) > 200 > 50 > max(bottom)


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"GIF89a"])
def test_what_cannot_be_decoded_is_left_out(data):
    assert thumbnail(data, side=64) is None
