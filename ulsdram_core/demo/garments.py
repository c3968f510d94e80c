"""Silhouettes of shirts, dresses, jackets, trousers and skirts, laid flat."""

from ulsdram_core.demo.entry import Entry
from ulsdram_core.demo.sketch import Sketch, box, ellipse, flipped, mirrored

_FIT_WIDTH = {"slim": -0.075, "classic": 0.0, "loose": 0.1}


def _add_sleeves(sketch: Sketch, length: str, *, shoulder: float, armpit: float) -> None:
    if length == "sleeveless":
        return
    if length == "short":
        sleeve = [(shoulder, 0.045), (shoulder + 0.17, 0.25), (shoulder + 0.06, 0.33)]
    else:
        sleeve = [
            (shoulder, 0.045),
            (shoulder + 0.13, 0.3),
            (shoulder + 0.2, 0.8),
            (shoulder + 0.09, 0.82),
            (shoulder + 0.02, 0.42),
        ]
        for cuff in (sleeve[2:4], flipped(sleeve[2:4])):
            sketch.line(cuff, "dark", 0.022)
    sleeve.append((armpit, 0.27))
    sketch.cloth += [sleeve, flipped(sleeve)]


def _add_neck(sketch: Sketch, neckline: str, half: float) -> None:
    if neckline == "round":
        sketch.add(ellipse((0, 0), half, 0.13, (0, 0.5)), "inside")
        sketch.line(ellipse((0, 0), half, 0.14, (0, 0.5)), "dark", 0.018)
    elif neckline == "v":
        sketch.add([(-half, 0), (half, 0), (0, 0.31)], "inside")
        sketch.line([(-half, 0), (0, 0.32), (half, 0)], "dark", 0.018)
    elif neckline == "square":
        sketch.add(box(-half * 1.15, -0.005, half * 1.15, 0.19), "inside")
        sketch.line(
            [(-half * 1.15, 0), (-half * 1.15, 0.195), (half * 1.15, 0.195), (half * 1.15, 0)],
            "dark",
            0.018,
        )
    elif neckline == "high":
        sketch.add(box(-half * 0.95, -0.15, half * 0.95, 0.03), "dark")
        sketch.line([(-half * 0.95, 0.03), (half * 0.95, 0.03)], "dark", 0.016)
        sketch.line([(-half * 0.95, -0.15), (half * 0.95, -0.15)], "dark", 0.016)
    else:
        _add_collar(sketch, half)


def _add_collar(sketch: Sketch, half: float) -> None:
    sketch.add([(-half * 0.7, -0.01), (half * 0.7, -0.01), (0, 0.09)], "inside")
    wing = [(half * 0.95, -0.035), (0.0, 0.09), (half * 0.75, 0.17), (half * 1.45, 0.035)]
    for side in (wing, flipped(wing)):
        sketch.add(side, "light")
        sketch.line([*side, side[0]], "dark", 0.014)
    sketch.line([(0, 0.09), (0, 0.84)], "dark", 0.014)
    for i in range(5):
        sketch.add(ellipse((0.0, 0.2 + 0.14 * i), 0.014, 0.014), "button")


def draw_shirt(entry: Entry) -> Sketch:
    """Return a top, 0.85 tall."""
    values = entry.values
    width = 0.235 + _FIT_WIDTH[values["fit"]] + 0.015 * entry.cut
    shoulder = 0.2 if values["sleeve_length"] == "sleeveless" else 0.235 + 0.02 * entry.cut
    armpit = min(shoulder - 0.015, width)
    body = mirrored([(0.11, 0), (shoulder, 0.05), (armpit, 0.27), (width, 0.55), (width, 0.85)])
    sketch = Sketch(cloth=[body])
    _add_sleeves(sketch, values["sleeve_length"], shoulder=shoulder, armpit=armpit)
    sketch.line([(-width, 0.825), (width, 0.825)], "shade", 0.012)
    _add_neck(sketch, values["neckline"], 0.11)
    return sketch


def draw_dress(entry: Entry) -> Sketch:
    """Return a dress, narrow at the waist and wide at the hem."""
    values = entry.values
    bottom = {"short": 0.8, "midi": 1.05, "long": 1.36}[values["length"]]
    hem = 0.24 + 0.08 * entry.cut + 0.06 * (bottom - 0.8)
    shoulder = 0.165 if values["sleeve_length"] == "sleeveless" else 0.19
    body = mirrored(
        [(0.1, 0), (shoulder, 0.045), (0.165, 0.25), (0.13, 0.4), (0.2, 0.55), (hem, bottom)]
    )
    sketch = Sketch(cloth=[body])
    _add_sleeves(sketch, values["sleeve_length"], shoulder=shoulder, armpit=0.16)
    sketch.add(box(-0.135, 0.385, 0.135, 0.425), "dark")
    for x in (-0.45, 0.0, 0.45):
        sketch.line([(x * 0.2, 0.44), (x * hem * 1.3, bottom - 0.02)], "shade", 0.012)
    _add_neck(sketch, values["neckline"], 0.1)
    return sketch


def draw_jacket(entry: Entry) -> Sketch:
    """Return a jacket with lapels, pockets and a hem band, zipped or buttoned."""
    values = entry.values
    width = 0.28 + _FIT_WIDTH[values["fit"]] + 0.01 * entry.cut
    shoulder = 0.25 if values["sleeve_length"] == "sleeveless" else 0.275
    armpit = min(shoulder - 0.015, width)
    body = mirrored([(0.1, -0.02), (shoulder, 0.05), (armpit, 0.27), (width, 0.6), (width, 0.82)])
    sketch = Sketch(cloth=[body])
    _add_sleeves(sketch, values["sleeve_length"], shoulder=shoulder, armpit=armpit)
    sketch.add(box(-width, 0.76, width, 0.83), "dark")
    sketch.add([(-0.1, -0.02), (0.1, -0.02), (0.0, 0.3)], "inside")
    lapel = [(0.1, -0.03), (0.0, 0.32), (0.13, 0.22), (0.19, 0.13), (0.16, 0.04)]
    for side in (lapel, flipped(lapel)):
        sketch.add(side, "shade")
        sketch.line([*side, side[0]], "dark", 0.014)
    if values["closure"] == "zip":
        sketch.line([(0, 0.3), (0, 0.82)], "silver", 0.035)
        sketch.line([(0, 0.3), (0, 0.82)], "ink", 0.012)
        sketch.add(box(-0.025, 0.32, 0.025, 0.4), "silver")
    else:
        sketch.line([(0, 0.31), (0, 0.82)], "dark", 0.014)
        for i in range(4):
            sketch.add(ellipse((0.05, 0.37 + 0.11 * i), 0.022, 0.022), "button")
    for sign in (-1, 1):
        sketch.line([(sign * width * 0.45, 0.58), (sign * width * 0.8, 0.52)], "dark", 0.022)
    return sketch


def _add_waistband(sketch: Sketch, waist: str, half: float) -> None:
    if waist == "high":
        sketch.cloth.append(box(-half * 0.97, -0.13, half * 0.97, 0.01))
        sketch.add(box(-half * 0.97, -0.13, half * 0.97, -0.01), "shade")
        for i in range(3):
            sketch.add(ellipse((0, -0.11 + 0.04 * i), 0.014, 0.014), "button")
    elif waist == "mid":
        sketch.add(box(-half, 0.0, half, 0.05), "dark")
        sketch.add(ellipse((0, 0.025), 0.016, 0.016), "button")
    else:
        sketch.line([(-half, 0.008), (0, 0.05), (half, 0.008)], "dark", 0.018)


def draw_trousers(entry: Entry) -> Sketch:
    """Return two legs: shorts, cropped or full."""
    values = entry.values
    bottom = {"short": 0.42, "cropped": 0.74, "long": 1.1}[values["length"]]
    leg = {"slim": 0.085, "classic": 0.135, "loose": 0.22}[values["fit"]] + 0.01 * entry.cut
    leg += 0.035 if values["length"] == "short" else 0.0
    outer = {"slim": 0.18, "classic": 0.2, "loose": 0.24}[values["fit"]]
    right = [(0.0, 0.0), (0.17, 0.0), (outer, 0.2), (0.04 + leg, bottom), (0.03, bottom), (0, 0.3)]
    sketch = Sketch(cloth=[right, flipped(right)])
    sketch.line([(0, 0.05), (0, 0.3)], "dark", 0.014)
    for sign in (-1, 1):
        sketch.line([(sign * 0.1, 0.06), (sign * 0.175, 0.14)], "dark", 0.014)
        sketch.line(
            [(sign * 0.03, bottom - 0.03), (sign * (0.04 + leg), bottom - 0.03)], "shade", 0.014
        )
    _add_waistband(sketch, values["waist"], 0.17)
    return sketch


def draw_skirt(entry: Entry) -> Sketch:
    """Return a flared skirt with pleats."""
    values = entry.values
    bottom = {"short": 0.36, "midi": 0.66, "long": 1.06}[values["length"]]
    hem = 0.26 + 0.1 * entry.cut + 0.08 * (bottom - 0.36)
    body = mirrored([(0.15, 0.0), (0.15 + (hem - 0.15) * 0.55, bottom * 0.45), (hem, bottom)])
    sketch = Sketch(cloth=[body])
    for x in (-0.66, -0.33, 0.0, 0.33, 0.66):
        sketch.line([(x * 0.15, 0.07), (x * hem, bottom - 0.01)], "shade", 0.014)
    sketch.line([(-hem, bottom - 0.025), (hem, bottom - 0.025)], "dark", 0.012)
    _add_waistband(sketch, values["waist"], 0.15)
    return sketch
