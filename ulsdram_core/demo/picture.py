"""Encoded pictures, and copies that other sellers made of them."""

from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image

from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.scene import Drawing


def encode_jpeg(drawing: Drawing, quality: int) -> bytes:
    """Return the drawing as a JPEG file."""
    stream = BytesIO()
    Image.fromarray(drawing.pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def crop_drawing(drawing: Drawing, dice: Dice) -> Drawing:
    """Return the drawing with 4 to 8 percent of each side cut off, as large as before."""
    side = drawing.pixels.shape[0]
    edge = side * dice.between(0.92, 0.96)
    left, top = dice.between(0, side - edge), dice.between(0, side - edge)
    cut = (left, top, left + edge, top + edge)
    pixels = Image.fromarray(drawing.pixels).resize((side, side), Image.Resampling.BILINEAR, cut)
    mask = Image.fromarray(drawing.mask.astype(np.uint8) * 255)
    mask = mask.resize((side, side), Image.Resampling.BILINEAR, cut)
    box = mask.getbbox()
    assert box is not None
    return replace(drawing, pixels=np.asarray(pixels), mask=np.asarray(mask) > 0, box=box)
