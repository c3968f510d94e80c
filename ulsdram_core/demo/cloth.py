"""Cloth with a pattern, and the paints that go with its color."""

from PIL import Image, ImageDraw

from ulsdram_core.demo.attributes import COLORS, luminance
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.entry import Entry

RGB = tuple[int, int, int]
_METALS: dict[str, RGB] = {"gold": (218, 172, 56), "silver": (196, 200, 206)}


def scale_color(color: RGB, factor: float) -> RGB:
    """Return the color made darker (below 1) or lighter."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in color)
    return red, green, blue


def blend(one: RGB, other: RGB, share: float) -> RGB:
    """Return the color that is `share` of the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def cloth_color(entry: Entry) -> RGB:
    """Return the product's own shade of its named color."""
    red, green, blue = (
        max(0, min(255, channel + offset))
        for channel, offset in zip(COLORS[entry.values["color"]], entry.dye, strict=True)
    )
    return red, green, blue


def mix_paints(entry: Entry) -> dict[str, RGB]:
    """Paint name of a sketch -> color."""
    base = cloth_color(entry)
    is_dark = luminance(entry.values["color"]) < 60
    seam = blend(base, (255, 255, 255), 0.3) if is_dark else scale_color(base, 0.58)
    return {
        **_METALS,
        "cloth": base,
        "dark": seam,
        "shade": blend(base, (255, 255, 255), 0.14) if is_dark else scale_color(base, 0.8),
        "light": blend(base, (255, 255, 255), 0.25),
        "inside": (66, 58, 54) if luminance(entry.values["color"]) > 130 else (232, 214, 196),
        "shadow": (92, 92, 96),
        "ink": (44, 44, 48),
        "button": (30, 30, 32) if luminance(entry.values["color"]) > 110 else (235, 232, 222),
        "lace": (40, 40, 44) if luminance(entry.values["color"]) > 150 else (240, 240, 236),
        "sole": scale_color(base, 0.42) if not is_dark else (196, 178, 150),
        "hand": (24, 24, 26) if luminance(entry.values["color"]) > 120 else (245, 245, 245),
    }


def weave_cloth(entry: Entry, size: tuple[int, int], unit: float, dice: Dice) -> Image.Image:
    """Return a piece of cloth; `unit` is the product's coordinate unit in pixels."""
    cloth = Image.new("RGB", size, cloth_color(entry))
    draw = ImageDraw.Draw(cloth)
    print_color = COLORS[entry.accent]
    phase = dice.between(0, 1)
    pattern = entry.values.get("pattern", "solid")
    if pattern == "striped":
        is_upright = entry.weave == 1
        _print_bars(cloth, (0.12 * unit, 0.3), phase, is_upright=is_upright, color=print_color)
    elif pattern == "checked":
        soft = blend(cloth_color(entry), print_color, 0.8)
        for is_upright in (False, True):
            _print_bars(cloth, (0.16 * unit, 0.17), phase, is_upright=is_upright, color=soft)
    elif pattern == "dotted":
        radius = 0.028 * unit
        reach = max(0.0, 2 * radius - 1)  # an ellipse includes its last pixel
        for x, y in _grid(size, 0.11 * unit, phase):
            left, top = x - radius, y - radius
            draw.ellipse((left, top, left + reach, top + reach), fill=print_color)
    elif pattern == "floral":
        _print_flowers(draw, size, unit=unit, color=print_color, dice=dice)
    return cloth


def _print_bars(
    cloth: Image.Image, rhythm: tuple[float, float], phase: float, *, is_upright: bool, color: RGB
) -> None:
    """Parallel bars; `rhythm` is their distance in pixels and the share of it that is printed."""
    step, share = rhythm
    draw = ImageDraw.Draw(cloth)
    width, height = cloth.size
    at = -phase * step
    while at < (width if is_upright else height):
        low = round(at)
        # A rectangle includes its last pixel.
        high = low + max(1, round(step * share)) - 1
        draw.rectangle((low, 0, high, height) if is_upright else (0, low, width, high), fill=color)
        at += step


def _grid(size: tuple[int, int], step: float, phase: float) -> list[tuple[float, float]]:
    """Return points of a staggered grid over the cloth."""
    rows = int(size[1] / step) + 2
    columns = int(size[0] / step) + 2
    return [
        ((column + phase - 0.5 * (row % 2)) * step, (row - phase) * step)
        for row in range(rows)
        for column in range(columns)
    ]


def _print_flowers(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], *, unit: float, color: RGB, dice: Dice
) -> None:
    petal = max(1.0, 0.034 * unit)
    side = int(6 * petal) + 1
    stamp = Image.new("L", (side, side))
    leaf = Image.new("L", (side, side))
    center = side / 2
    for image, offsets, radius in (
        (stamp, ((1.2, 0.0), (0.37, 1.14), (-0.97, 0.7), (-0.97, -0.7), (0.37, -1.14)), 0.95),
        (leaf, ((1.9, 1.9), (-1.9, 1.6)), 0.6),
    ):
        pen = ImageDraw.Draw(image)
        for dx, dy in offsets:
            x, y, reach = center + dx * petal, center + dy * petal, radius * petal
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
    green = (58, 110, 62)
    for x, y in _grid(size, 0.24 * unit, dice.between(0, 1)):
        left = round(x + dice.between(-0.03, 0.03) * unit - center)
        top = round(y + dice.between(-0.03, 0.03) * unit - center)
        draw.bitmap((left, top), leaf, fill=green)
        draw.bitmap((left, top), stamp, fill=color)
        heart = (left + center - petal * 0.6, top + center - petal * 0.6)
        draw.ellipse((*heart, heart[0] + petal * 1.2, heart[1] + petal * 1.2), fill=(240, 196, 60))
