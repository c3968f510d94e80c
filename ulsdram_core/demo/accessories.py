"""Silhouettes of shoes, bags and watches."""

from ulsdram_core.demo.entry import Entry
from ulsdram_core.demo.sketch import Polygon, Sketch, box, ellipse, mirrored

_GROUND = 0.62
_SOLE = 0.045


def _toe(shape: str, ball: float) -> Polygon:
    """Return the toe cap from the vamp down to the sole."""
    if shape == "round":
        return [(0.8, ball - 0.16), (0.93, ball - 0.15), (0.99, ball - 0.08), (0.99, ball)]
    if shape == "square":
        return [(0.78, ball - 0.15), (0.97, ball - 0.14), (0.985, ball - 0.13), (0.985, ball)]
    return [(0.78, ball - 0.13), (0.95, ball - 0.06), (1.1, ball - 0.005), (1.1, ball)]


def _add_heel(sketch: Sketch, heel: str, rise: float) -> None:
    top = _GROUND - rise
    ball = _GROUND - _SOLE
    if heel == "flat":
        sketch.add(box(0.0, ball, 1.0, _GROUND), "sole")
        return
    sketch.add([(0.02, top - _SOLE), (0.3, top - 0.01), (0.6, ball), (1.0, ball), (1.0, _GROUND),
                (0.6, _GROUND), (0.3, top + 0.03), (0.02, top)], "sole")  # fmt: skip
    if heel == "high":
        sketch.add(
            [(0.01, top - 0.02), (0.13, top - 0.01), (0.075, _GROUND), (0.03, _GROUND)], "sole"
        )
    elif heel == "block":
        sketch.add([(0.01, top - 0.02), (0.26, top), (0.24, _GROUND), (0.0, _GROUND)], "sole")
    else:
        sketch.add([(0.01, top - 0.02), (0.6, ball), (0.6, _GROUND), (0.0, _GROUND)], "sole")


def draw_shoes(entry: Entry) -> Sketch:
    """Return one shoe from the side, its toe to the right."""
    values = entry.values
    rise = {"flat": _SOLE, "high": 0.32, "block": 0.24, "wedge": 0.24}[values["heel"]]
    heel_y, ball = _GROUND - rise - (0.0 if rise == _SOLE else _SOLE), _GROUND - _SOLE
    collar = heel_y - 0.27 - 0.03 * entry.cut
    upper = [
        (0.02, heel_y),
        (0.0, collar + 0.1),
        (0.03, collar),
        (0.16, collar + 0.05),
        (0.3, collar + 0.02),
        (0.37, collar + 0.03),
        (0.55, (heel_y + ball) / 2 - 0.2),
        *_toe(values["toe_shape"], ball),
        (0.6, ball),
        (0.3, (heel_y * 0.75 + ball * 0.25)),
    ]
    sketch = Sketch(cloth=[upper])
    _add_heel(sketch, values["heel"], rise)
    sketch.add(ellipse((0.19, collar + 0.035), 0.155, 0.035), "inside")
    middle = (heel_y + ball) / 2
    if values["closure"] == "lace":
        for i in range(4):
            x, y = 0.37 + 0.075 * i, collar + 0.05 + i * (middle - 0.2 - collar) / 3
            sketch.line([(x, y), (x + 0.1, y + 0.08)], "lace", 0.022)
            sketch.line([(x + 0.08, y + 0.0), (x, y + 0.09)], "lace", 0.018)
    elif values["closure"] == "buckle":
        sketch.line([(0.33, collar + 0.05), (0.42, middle - 0.02)], "dark", 0.07)
        sketch.line(
            [*box(0.33, collar + 0.1, 0.44, collar + 0.2), (0.33, collar + 0.1)], "gold", 0.022
        )
    else:
        sketch.line([(0.36, collar + 0.08), (0.5, middle - 0.05)], "shade", 0.03)
    return sketch


def _add_straps(sketch: Sketch, strap: str, metal: str) -> None:
    if strap == "double":
        for x in (-0.09, 0.09):
            sketch.line(ellipse((x, 0.0), 0.13, 0.26, (0.5, 1.0)), "dark", 0.03)
    elif strap == "single":
        sketch.line(ellipse((0.0, 0.02), 0.27, 0.44, (0.5, 1.0)), "cloth", 0.055)
        sketch.line(ellipse((0.0, 0.02), 0.27, 0.44, (0.5, 1.0)), "dark", 0.01)
    else:
        sketch.line(ellipse((0.0, 0.02), 0.26, 0.4, (0.5, 1.0)), "shadow", 0.012)
        for x, y in ellipse((0.0, 0.02), 0.26, 0.4, (0.5, 1.0)):
            sketch.add(box(x - 0.022, y - 0.022, x + 0.022, y + 0.022), metal)


def draw_bag(entry: Entry) -> Sketch:
    """Return a bag from the front, its straps above."""
    values = entry.values
    metal = values["hardware"]
    sketch = Sketch()
    _add_straps(sketch, values["strap"], metal)
    deep = 0.5 + 0.06 * entry.cut
    if values["bag_shape"] == "round":
        body, half = ellipse((0.0, deep * 0.55 - 0.03), 0.34, deep * 0.6), 0.28
    elif values["bag_shape"] == "square":
        body, half = mirrored([(0.29, -0.02), (0.3, 0.0), (0.3, deep), (0.28, deep + 0.02)]), 0.3
    else:
        body, half = mirrored([(0.36, 0.0), (0.47, deep * 0.8), (0.45, deep * 0.84)]), 0.37
    sketch.cloth = [body]
    if values["closure"] == "zip":
        sketch.line([(-half * 0.85, 0.09), (half * 0.85, 0.09)], "ink", 0.035)
        sketch.line([(-half * 0.85, 0.09), (half * 0.85, 0.09)], metal, 0.014)
        sketch.add(box(half * 0.55, 0.09, half * 0.7, 0.19), metal)
    else:
        flap = mirrored([(half, 0.0), (half * 0.9, deep * 0.4), (half * 0.6, deep * 0.5)])
        sketch.line([*flap, flap[0]], "dark", 0.018)
        if values["closure"] == "buckle":
            sketch.add(box(-0.035, 0.02, 0.035, deep * 0.66), "dark")
            frame = box(-0.075, deep * 0.42, 0.075, deep * 0.58)
            sketch.line([*frame, frame[0]], metal, 0.026)
        else:
            sketch.add(ellipse((0.0, deep * 0.5), 0.055, 0.055), metal)
    for x in (-half * 0.8, half * 0.8):
        sketch.add(ellipse((x, 0.015), 0.03, 0.03), metal)
    return sketch


def _add_strap_texture(sketch: Sketch, strap: str, half: float) -> None:
    ends = ((-0.52, -0.2), (0.2, 0.52))
    if strap == "nylon":
        for top, bottom in ends:
            sketch.line([(0, top), (0, bottom)], "light", 0.05)
    for top, bottom in ends:
        for i in range(6 if strap in ("steel", "mesh") else 0):
            y = top + (bottom - top) * (i + 0.5) / 6
            sketch.line([(-half, y), (half, y)], "dark", 0.014)
        if strap == "mesh":
            for x in (-0.5, 0.0, 0.5):
                sketch.line([(x * half, top), (x * half, bottom)], "dark", 0.012)
        if strap == "leather":
            for x in (-0.75, 0.75):
                sketch.line([(x * half, top), (x * half, bottom)], "light", 0.012)


def draw_watch(entry: Entry) -> Sketch:
    """Return a watch from the front; strap and dial have the product's color, the case is metal."""
    values = entry.values
    metal = values["case_color"]
    half = 0.1 + 0.02 * entry.cut
    sketch = Sketch(
        cloth=[mirrored([(half * 0.8, -0.56), (half, -0.2), (half, 0.2), (half * 0.8, 0.56)])]
    )
    _add_strap_texture(sketch, values["strap"], half)
    if values["dial_shape"] == "round":
        rings = [ellipse((0, 0), size, size) for size in (0.25, 0.185)]
    else:
        rings = [box(-size, -size, size, size) for size in (0.22, 0.16)]
    sketch.add(box(0.2, -0.03, 0.29, 0.03), metal)
    sketch.add(rings[0], metal)
    sketch.line([*rings[0], rings[0][0]], "shadow", 0.012)
    sketch.add(rings[1], "cloth")
    sketch.line([(0, 0), (0.0, -0.13)], "hand", 0.024)
    sketch.line([(0, 0), (0.085, 0.05)], "hand", 0.024)
    for x, y in ((0, -0.15), (0.15, 0), (0, 0.15), (-0.15, 0)):
        sketch.add(ellipse((x, y), 0.014, 0.014), "hand")
    return sketch
