"""Small charts as PNG, drawn with Pillow: bars with deviations, and a line."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

WIDTH, LEFT, RIGHT, TOP, BAR = 900, 330, 80, 50, 30
INK, GREY, OURS, OTHERS, LINE = "#1b1f24", "#c9ced6", "#2f6fdd", "#9aa6b5", "#d1495b"


@dataclass(frozen=True)
class BarRow:
    """One bar."""

    label: str
    value: float
    sd: float
    ours: bool


def bar_chart(title: str, rows: Sequence[BarRow]) -> bytes:
    """Return horizontal bars; the axis begins below the lowest value, and says where."""
    height = TOP + BAR * len(rows) + 50
    image = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((20, 15), title, fill=INK, font=_font(16))
    if rows:
        low, high = _range(
            [row.value - row.sd for row in rows], [row.value + row.sd for row in rows]
        )
        scale = (WIDTH - LEFT - RIGHT) / (high - low)
        for place, row in enumerate(rows):
            y = TOP + BAR * place
            end = LEFT + (row.value - low) * scale
            draw.text((20, y + 6), _fitting(row.label, LEFT - 30), fill=INK, font=_font(13))
            draw.rectangle((LEFT, y + 4, end, y + BAR - 6), fill=OURS if row.ours else OTHERS)
            if row.sd:
                middle = y + BAR / 2 - 1
                draw.line((end - row.sd * scale, middle, end + row.sd * scale, middle), INK, 2)
            draw.text((end + row.sd * scale + 6, y + 6), f"{row.value:.2f}", INK, _font(13))
        bottom = TOP + BAR * len(rows) + 5
        draw.line((LEFT, bottom, WIDTH - RIGHT, bottom), GREY, 1)
        draw.text((LEFT, bottom + 5), f"{low:.1f}", INK, _font(12))
        draw.text((WIDTH - RIGHT - 30, bottom + 5), f"{high:.1f}", INK, _font(12))
    return _png(image)


def line_chart(title: str, points: Sequence[tuple[float, float]], *, x_label: str) -> bytes:
    """Return one line with a dot per point; the highest is marked."""
    width, height, left, bottom = WIDTH, 480, 80, 410
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((20, 15), title, fill=INK, font=_font(16))
    if points:
        low, high = _range([y for _, y in points], [y for _, y in points])
        first, last = points[0][0], max(points[-1][0], points[0][0] + 1e-9)

        def spot(x: float, y: float) -> tuple[float, float]:
            across = left + (x - first) / (last - first) * (width - left - 60)
            return across, bottom - (y - low) / (high - low) * (bottom - 70)

        for level in range(5):
            value = low + (high - low) * level / 4
            y = spot(first, value)[1]
            draw.line((left, y, width - 50, y), GREY, 1)
            draw.text((20, y - 8), f"{value:.1f}", INK, _font(12))
        spots = [spot(*point) for point in points]
        draw.line(spots, INK, 2)
        _draw_dots(draw, points, spots)
        for point, (x, _) in zip(points, spots, strict=True):
            draw.text((x - 12, bottom + 8), f"{point[0]:.2f}", INK, _font(11))
        draw.text((width // 2 - 60, bottom + 32), x_label, INK, _font(13))
    return _png(image)


def _draw_dots(
    draw: ImageDraw.ImageDraw,
    points: Sequence[tuple[float, float]],
    spots: Sequence[tuple[float, float]],
) -> None:
    best = max(points, key=lambda point: point[1])
    for point, (x, y) in zip(points, spots, strict=True):
        size, colour = (6, LINE) if point == best else (3, INK)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)


def _range(lowest: Sequence[float], highest: Sequence[float]) -> tuple[float, float]:
    low, high = min(lowest), max(highest)
    room = max(0.5, 0.1 * (high - low))
    return max(0.0, low - 2 * room), high + room


def _fitting(text: str, width: int) -> str:
    font = _font(13)
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
