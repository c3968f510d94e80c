"""Outlines of a product in its own coordinates: x to the right, y down, about one unit tall."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
Polygon = list[Point]


@dataclass(frozen=True, slots=True)
class Detail:
    """A flat-colored shape upon the cloth; `width` 0 fills it, else it is a line that wide."""

    points: Polygon
    paint: str
    width: float = 0.0


@dataclass(slots=True)
class Sketch:
    """Cloth polygons, painted first and with the product's pattern, then details in order."""

    cloth: list[Polygon] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)

    def add(self, points: Sequence[Point], paint: str) -> None:
        """Add a filled shape."""
        self.details.append(Detail(list(points), paint))

    def line(self, points: Sequence[Point], paint: str, width: float) -> None:
        """Add an open line."""
        self.details.append(Detail(list(points), paint, width))

    def points(self) -> Polygon:
        """Return all corners, to find the extent."""
        corners = [point for polygon in self.cloth for point in polygon]
        return corners + [point for detail in self.details for point in detail.points]


def mirrored(right: Sequence[Point]) -> Polygon:
    """Return the closed outline whose right half runs from top to bottom."""
    return [*right, *((-x, y) for x, y in reversed(right))]


def flipped(points: Sequence[Point]) -> Polygon:
    """Return the shape seen in a mirror."""
    return [(-x, y) for x, y in points]


def ellipse(
    center: Point, radius_x: float, radius_y: float, span: tuple[float, float] = (0.0, 1.0)
) -> Polygon:
    """Return an ellipse, or the arc of it between two turns (0 is right, 0.25 is down)."""
    steps = 24
    turns = (span[0] + (span[1] - span[0]) * i / steps for i in range(steps + 1))
    return [
        (
            center[0] + radius_x * math.cos(2 * math.pi * turn),
            center[1] + radius_y * math.sin(2 * math.pi * turn),
        )
        for turn in turns
    ]


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """Return an upright rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
