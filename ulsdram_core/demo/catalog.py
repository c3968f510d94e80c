"""Draws the demo catalogue, one listing at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from ulsdram_core.demo.ambiguity import TRAITS, Scribe, draw_trait
from ulsdram_core.demo.config import DemoConfig
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.entry import Entry, draw_entry
from ulsdram_core.demo.lexicon import Lexicon, load_lexicon, read_marks
from ulsdram_core.demo.picture import crop_drawing, encode_jpeg
from ulsdram_core.demo.product import FIRST_NIGHT, DemoProduct
from ulsdram_core.demo.scene import Drawing, draw_scene
from ulsdram_core.demo.titles import write_description, write_neutral_description, write_title

LEXICONS: dict[str, Lexicon] = {"en": load_lexicon("english"), "zh": load_lexicon("chinese")}
_COLOR_TRAITS = ("two_colors", "mood_color", "brand_color")
_COPIED = 0.3  # share of duplicates whose seller copied the picture instead of taking one


@dataclass(frozen=True, slots=True)
class _Texts:
    title: str  # both are marked
    description: str
    trait: str | None


def catalog_root(config: DemoConfig, index: int) -> int:
    """Return the first listing of the product that listing `index` sells."""
    while index:
        dice = Dice(config.seed, "catalog", index)
        if not dice.chance(config.duplicates):
            break
        index = dice.integer(0, index - 1)
    return index


def has_picture(config: DemoConfig, index: int) -> bool:
    """Return whether the listing comes with a picture."""
    dice = Dice(config.seed, "picture", index)
    return config.with_pictures and not dice.chance(config.missing_pictures)


def draw_listing(config: DemoConfig, index: int) -> Drawing:
    """Return the listing's picture before encoding, also where the catalogue leaves it out."""
    root = catalog_root(config, index)
    return _draw_picture(config, index, root, draw_entry(Dice(config.seed, "facts", root)))


def _draw_picture(config: DemoConfig, index: int, root: int, entry: Entry) -> Drawing:
    dice = Dice(config.seed, "copy", index)
    is_copy = root != index and dice.chance(_COPIED)
    drawing = draw_scene(
        entry,
        config.picture_size,
        small_share=config.small,
        dice=Dice(config.seed, "scene", root if is_copy else index),
    )
    return crop_drawing(drawing, dice) if is_copy else drawing


def _draw_trait(config: DemoConfig, index: int, entry: Entry, dice: Dice) -> str | None:
    """Return the ambiguity of the listing's texts; a listing that lost its picture has none."""
    is_lost = Dice(config.seed, "picture", index).chance(config.missing_pictures)
    share = config.ambiguous / (1 - config.missing_pictures) if config.ambiguous else 0.0
    if is_lost or not dice.chance(share):
        return None
    return draw_trait(entry, LEXICONS[config.language], dice)


def _write_texts(config: DemoConfig, index: int, entry: Entry, attempt: int) -> _Texts:
    lexicon = LEXICONS[config.language]
    dice = Dice(config.seed, "texts", index, attempt)
    trait = _draw_trait(config, index, entry, dice)
    if trait is None:
        title = write_title(entry, lexicon, dice)
        return _Texts(title, write_description(entry, lexicon, dice), None)
    title = TRAITS[trait](Scribe(entry, lexicon, dice))
    description = write_neutral_description(
        entry, lexicon, dice, allow_decoy=trait in _COLOR_TRAITS
    )
    return _Texts(title, description, trait)


def _write_listing(config: DemoConfig, index: int, root: int, entry: Entry) -> _Texts:
    """Return the listing's texts; a duplicate never has the title of the first listing."""
    texts = _write_texts(config, index, entry, 0)
    if index == root:
        return texts
    first = _write_texts(config, root, entry, 0).title
    attempt = 0
    while texts.title == first:
        attempt += 1
        texts = _write_texts(config, index, entry, attempt)
    return texts


def make_product(config: DemoConfig, index: int) -> DemoProduct:
    """Return listing number `index`, whatever the catalogue's size."""
    root = catalog_root(config, index)
    entry = draw_entry(Dice(config.seed, "facts", root))
    texts = _write_listing(config, index, root, entry)
    title, title_gold = read_marks(texts.title, "title")
    description, description_gold = read_marks(texts.description, "description")
    dice = Dice(config.seed, "listing", index)
    updated_at = FIRST_NIGHT - timedelta(minutes=dice.integer(1, 60 * 24 * 200))
    quality = dice.integer(68, 92)
    drawing = _draw_picture(config, index, root, entry) if has_picture(config, index) else None
    return DemoProduct(
        product_id=f"demo-{config.seed}-{index:07d}",
        catalog_id=f"catalog-{config.seed}-{root:07d}",
        title=title,
        description=description,
        picture=None if drawing is None else encode_jpeg(drawing, quality),
        category=entry.category,
        specs=LEXICONS[config.language].specs(entry),
        gold=title_gold + description_gold,
        box=None if drawing is None else drawing.box,
        is_small=drawing is not None and drawing.is_small,
        trait=texts.trait,
        updated_at=updated_at,
    )


def generate_range(config: DemoConfig, start: int, end: int) -> Iterator[DemoProduct]:
    """Yield listings start..end-1; any split over workers draws the same catalogue."""
    if not 0 <= start <= end:
        raise ValueError(
            f"found the range [{start}, {end}), expected 0 <= start <= end; correct the bounds"
        )
    return (make_product(config, index) for index in range(start, end))


def generate(config: DemoConfig) -> Iterator[DemoProduct]:
    """Return the first `num_products` listings, drawn one at a time."""
    return generate_range(config, 0, config.num_products)
