from dataclasses import replace

import numpy as np
import pytest

from ulsdram_core.demo import DemoConfig, draw_listing
from ulsdram_core.demo.attributes import CATEGORIES, COLORS, VALUES
from ulsdram_core.demo.catalog import catalog_root
from ulsdram_core.demo.cloth import cloth_color, weave_cloth
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.entry import draw_entry
from ulsdram_core.demo.scene import draw_scene

CONFIG = DemoConfig(picture_size=64, seed=3)


@pytest.fixture(scope="module")
def drawings():
    return [draw_listing(CONFIG, index) for index in range(300)]


def test_the_box_is_the_extent_of_the_product(drawings):
    for drawing in drawings:
        left, top, right, bottom = drawing.box
        inside = drawing.mask[top:bottom, left:right]
        assert drawing.mask.sum() == inside.sum() > 0
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_a_share_is_small_and_off_centre(drawings):
    small = [drawing.box for drawing in drawings if drawing.is_small]
    assert 0.14 < len(small) / len(drawings) < 0.27
    for left, top, right, bottom in small:
        assert (right - left) * (bottom - top) / 64**2 <= 0.25 * 1.1
        aside = max(abs((left + right) / 2 - 32), abs((top + bottom) / 2 - 32))
        assert aside > 2
    shares = [(r - x) * (b - y) / 64**2 for x, y, r, b in (d.box for d in drawings)]
    assert min(shares) < 0.15
    assert max(shares) > 0.6


def test_plain_products_show_their_color(drawings):
    names = list(COLORS)
    palette = np.array([COLORS[name] for name in names])
    is_right = []
    for index, drawing in enumerate(drawings):
        entry = draw_entry(Dice(CONFIG.seed, "facts", catalog_root(CONFIG, index)))
        if entry.values.get("pattern", "solid") == "solid" and entry.category != "watch":
            seen = np.median(drawing.pixels[drawing.mask], axis=0)
            nearest = names[int(np.abs(palette - seen).sum(axis=1).argmin())]
            is_right.append(nearest == entry.values["color"])
    assert np.mean(is_right) > 0.85


@pytest.mark.parametrize("unit", [40, 60, 150])
def test_the_color_outweighs_the_print(unit):
    for number in range(60):
        entry = draw_entry(Dice("print", number))
        cloth = np.asarray(weave_cloth(entry, (unit, unit), unit, Dice("cloth", number)))
        is_base = (cloth == np.array(cloth_color(entry))).all(axis=2)
        assert is_base.mean() > 0.55


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_value_can_be_drawn(category):
    drawn = set()
    for number in range(400):
        entry = draw_entry(Dice("all", number))
        if entry.category == category:
            drawing = draw_scene(entry, 32, small_share=0.0, dice=Dice("scene", number))
            assert drawing.pixels.shape == (32, 32, 3)
            drawn |= set(entry.values.items())
    wanted = {(name, key) for name, keys in VALUES[category].items() for key in keys}
    assert wanted <= drawn


@pytest.mark.parametrize("attribute", ["sleeve_length", "neckline", "fit", "pattern"])
def test_a_visible_value_changes_the_picture(attribute):
    base = next(
        entry
        for entry in (draw_entry(Dice("value", number)) for number in range(100))
        if entry.category == "shirt"
    )
    pictures = set()
    for key in VALUES["shirt"][attribute]:
        entry = replace(base, values={**base.values, attribute: key})
        pictures.add(draw_scene(entry, 64, small_share=0, dice=Dice("x")).pixels.tobytes())
    assert len(pictures) == len(VALUES["shirt"][attribute])
