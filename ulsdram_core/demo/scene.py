"""A photograph of a product: where it lies, what is behind it, how it is lit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ulsdram_core.demo.accessories import draw_bag, draw_shoes, draw_watch
from ulsdram_core.demo.attributes import COLORS
from ulsdram_core.demo.cloth import RGB, blend, mix_paints, weave_cloth
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.entry import Entry
from ulsdram_core.demo.garments import (
    draw_dress,
    draw_jacket,
    draw_shirt,
    draw_skirt,
    draw_trousers,
)
from ulsdram_core.demo.sketch import Point, Sketch

Box = tuple[int, int, int, int]
_FINE = 2  # pixels drawn for each pixel kept, along each side

_DRAW = {
    "shirt": draw_shirt,
    "dress": draw_dress,
    "trousers": draw_trousers,
    "skirt": draw_skirt,
    "jacket": draw_jacket,
    "shoes": draw_shoes,
    "bag": draw_bag,
    "watch": draw_watch,
}


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A picture before encoding; `box` is half-open (left, top, right, bottom) in pixels."""

    pixels: NDArray[np.uint8]  # [S, S, 3]
    mask: NDArray[np.bool_]  # [S, S], True where any of the product is seen
    box: Box
    is_small: bool


@dataclass(frozen=True, slots=True)
class Pose:
    """Turns a sketch's coordinates into pixels of the fine canvas."""

    unit: float
    angle: float
    left: float
    top: float
    mirror: float  # 1 or -1

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Return the points in pixels."""
        cos, sin = math.cos(self.angle) * self.unit, math.sin(self.angle) * self.unit
        return [
            (
                self.left + cos * x * self.mirror - sin * y,
                self.top + sin * x * self.mirror + cos * y,
            )
            for x, y in points
        ]


def _extent(points: Sequence[Point]) -> tuple[float, float, float, float]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def choose_pose(sketch: Sketch, side: int, *, is_small: bool, dice: Dice) -> Pose:
    """Return where the product lies: small and off-centre, or large and near the centre."""
    angle = math.radians(dice.between(-9, 9))
    mirror = dice.choose((1.0, -1.0))
    corners = sketch.points()
    left, top, right, bottom = _extent(Pose(1.0, angle, 0.0, 0.0, mirror).place(corners))
    width, height = right - left, bottom - top
    share = dice.between(0.1, 0.2) if is_small else dice.between(0.36, 0.8)
    room = side * (0.62 if is_small else 0.94)
    unit = min(math.sqrt(share / (width * height)) * side, room / max(width, height))
    free_x, free_y = side - width * unit, side - height * unit
    at_x, at_y = dice.between(0, 1), dice.between(0, 1)
    if is_small:
        # Pushed away from the middle along one of the axes at least.
        pushed = dice.choose((0.06, 0.94)) + dice.between(-0.05, 0.05)
        at_x, at_y = (pushed, at_y) if dice.chance(0.5) else (at_x, pushed)
    margin = 0.02 * side
    return Pose(
        unit,
        angle,
        margin + at_x * (free_x - 2 * margin) - left * unit,
        margin + at_y * (free_y - 2 * margin) - top * unit,
        mirror,
    )


def _draw_background(side: int, dice: Dice) -> Image.Image:
    """Return a background: mostly plain and light, at times tinted, floored or strong."""
    kind = dice.between(0, 1)
    grey = dice.integer(222, 252)
    wall: RGB = (grey, grey, max(0, grey - dice.integer(0, 8)))
    strong = COLORS[dice.choose(tuple(COLORS))]
    if kind > 0.9:
        wall = blend(strong, (200, 200, 200), 0.45)
    elif kind > 0.72:
        wall = blend(strong, (255, 255, 255), 0.72)
    picture = Image.new("RGB", (side, side), wall)
    if 0.55 < kind <= 0.72:
        floor = dice.between(0.6, 0.85) * side
        ImageDraw.Draw(picture).rectangle(
            (0, floor, side, side), fill=blend(wall, (120, 104, 88), 0.3)
        )
    return picture


def _draw_distractor(picture: Image.Image, keep_out: Sequence[float], dice: Dice) -> None:
    """Draw a badge or a thing of any color in the corner farthest from the product."""
    side = picture.width
    draw = ImageDraw.Draw(picture)
    size = dice.between(0.09, 0.2) * side
    middle_x, middle_y = (keep_out[0] + keep_out[2]) / 2, (keep_out[1] + keep_out[3]) / 2
    x = size * 0.7 if middle_x > side / 2 else side - size * 0.7
    y = size * 0.7 if middle_y > side / 2 else side - size * 0.7
    color = COLORS[dice.choose(tuple(COLORS))]
    kind = dice.integer(0, 2)
    half = size / 2
    if kind == 0:
        draw.ellipse((x - half, y - half, x + half, y + half), fill=color)
    elif kind == 1:
        draw.polygon([(x - half, y + half), (x, y - half), (x + half, y + half)], fill=color)
    else:
        draw.rectangle((x - half, y - half * 0.5, x + half, y + half * 0.5), fill=color)
        for i in range(3):
            at = x - half * 0.7 + i * half * 0.55
            draw.line((at, y - half * 0.2, at + half * 0.3, y + half * 0.2), (255, 255, 255), 2)


def _paint(
    picture: Image.Image, sketch: Sketch, *, entry: Entry, pose: Pose, dice: Dice
) -> Image.Image:
    """Draw the product upon the picture; return its mask, as large as the picture."""
    mask = Image.new("L", picture.size)
    stencil = ImageDraw.Draw(mask)
    draw = ImageDraw.Draw(picture)
    paints = mix_paints(entry)
    outlines = [pose.place(polygon) for polygon in sketch.cloth]
    for outline in outlines:
        stencil.polygon(outline, fill=255)
    area = mask.getbbox() or (0, 0, 1, 1)
    cloth = weave_cloth(entry, (area[2] - area[0], area[3] - area[1]), pose.unit, dice)
    picture.paste(cloth, area[:2], mask.crop(area))
    seam = max(1, round(0.012 * pose.unit))
    for outline in outlines:
        draw.line([*outline, outline[0]], paints["dark"], seam)
        stencil.line([*outline, outline[0]], 255, seam)
    for detail in sketch.details:
        points = pose.place(detail.points)
        if detail.width:
            width = max(1, round(detail.width * pose.unit))
            draw.line(points, paints[detail.paint], width)
            stencil.line(points, 255, width)
        else:
            draw.polygon(points, fill=paints[detail.paint])
            stencil.polygon(points, fill=255)
    return mask


def _fold(mask: NDArray[np.bool_], dice: Dice) -> NDArray[np.float64]:
    """Return soft slanted waves of light on the product, 0 elsewhere; [S, S]."""
    waves, phase = dice.between(3, 7), dice.between(0, 2 * math.pi)
    # sin(a + b) from sines per row and column, by `math`: numpy's own differ between processors.
    side = mask.shape[0]
    across = [waves * (2 * i / (side - 1) - 1) + phase for i in range(side)]
    down = [0.35 * waves * (2 * i / (side - 1) - 1) for i in range(side)]
    sin_x, cos_x = (np.array([f(a) for a in across]) for f in (math.sin, math.cos))
    sin_y, cos_y = (np.array([f(a) for a in down])[:, None] for f in (math.sin, math.cos))
    return mask * (0.05 * (sin_x * cos_y + cos_x * sin_y))


def _light(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], dice: Dice) -> NDArray[np.uint8]:
    """Return the picture under a lamp: a gain, a ramp across, soft folds on the product."""
    gain, turn, ramp = dice.between(0.86, 1.06), dice.between(0, 2 * math.pi), dice.between(0, 0.09)
    warmth = dice.between(-0.025, 0.025)
    axis = np.linspace(-1, 1, pixels.shape[0])
    slope_x, slope_y = ramp * math.cos(turn), ramp * math.sin(turn)
    light = (gain + slope_x * axis) + (slope_y * axis)[:, None] + _fold(mask, dice)
    lit = np.empty_like(pixels)
    for channel, tint in enumerate((1 + warmth, 1.0, 1 - warmth)):
        lit[..., channel] = np.minimum(pixels[..., channel] * (light * tint) + 0.5, 255)
    return lit


def draw_scene(entry: Entry, size: int, *, small_share: float, dice: Dice) -> Drawing:
    """Return a photograph of the product, `size` pixels square."""
    sketch = _DRAW[entry.category](entry)
    side = size * _FINE
    is_small = dice.chance(small_share)
    pose = choose_pose(sketch, side, is_small=is_small, dice=dice)
    picture = _draw_background(side, dice)
    if dice.chance(0.25):
        _draw_distractor(picture, _extent(pose.place(sketch.points())), dice)
    _drop_shadow(picture, sketch, pose)
    mask = _paint(picture, sketch, entry=entry, pose=pose, dice=dice).reduce(_FINE)
    pixels = np.asarray(picture.reduce(_FINE))
    is_product = np.asarray(mask) > 0
    box = mask.getbbox()
    assert box is not None
    return Drawing(_light(pixels, is_product, dice), is_product, box, is_small)


def _drop_shadow(picture: Image.Image, sketch: Sketch, pose: Pose) -> None:
    offset = 0.03 * pose.unit
    behind = Pose(pose.unit, pose.angle, pose.left + offset, pose.top + offset, pose.mirror)
    draw = ImageDraw.Draw(picture)
    wall = picture.getpixel((0, 0))
    assert isinstance(wall, tuple)
    red, green, blue = (round(channel * 0.86) for channel in wall[:3])
    for polygon in sketch.cloth:
        draw.polygon(behind.place(polygon), fill=(red, green, blue))
