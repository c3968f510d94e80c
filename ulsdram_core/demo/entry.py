"""What is true of one catalogue entry, whoever sells it."""

from collections.abc import Mapping
from dataclasses import dataclass

from ulsdram_core.demo.attributes import (
    ACCENTS,
    CATEGORIES,
    COLORS,
    GENDERS,
    USAGES,
    VALUES,
    WOMEN_ONLY,
)
from ulsdram_core.demo.dice import Dice

NUM_BRANDS = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """A catalogue entry without words: value keys for the text, looks for the picture.

    A brand is a coined name, or (`is_noun_brand`) a noun that may carry a color before it:
    "Fox" and "Red Fox" are two brands. That color is never the color of the product.
    """

    category: str
    values: Mapping[str, str]  # attribute -> value key, without brand and type
    second_material: str | None
    brand: int
    is_noun_brand: bool
    brand_color: str | None
    accent: str  # color of the pattern's print
    dye: tuple[int, int, int]  # offset of this product's shade from its named color
    cut: float  # 0 to 1: small differences of silhouette
    weave: int  # 0 or 1: direction of stripes


def draw_entry(dice: Dice) -> Entry:
    """Return one catalogue entry; categories, colors and most values are equally likely."""
    category = dice.choose(CATEGORIES)
    color = dice.choose(tuple(COLORS))
    gender = "women" if category in WOMEN_ONLY else dice.weighted(GENDERS, (0.45, 0.45, 0.1))
    values = {"gender": gender, "color": color, "usage": dice.choose(USAGES)}
    for attribute, keys in VALUES[category].items():
        values[attribute] = dice.choose(keys)
    others = [key for key in VALUES[category].get("material", ()) if key != values["material"]]
    second_material = dice.choose(others) if others and dice.chance(0.12) else None
    is_noun_brand = dice.chance(0.5)
    has_brand_color = is_noun_brand and dice.chance(0.5)
    other_colors = [name for name in COLORS if name != color]
    return Entry(
        category=category,
        values=values,
        second_material=second_material,
        brand=dice.integer(0, NUM_BRANDS - 1),
        is_noun_brand=is_noun_brand,
        brand_color=dice.choose(other_colors) if has_brand_color else None,
        accent=dice.choose(ACCENTS[color]),
        dye=(dice.integer(-9, 9), dice.integer(-9, 9), dice.integer(-9, 9)),
        cut=dice.between(0, 1),
        weave=dice.integer(0, 1),
    )
