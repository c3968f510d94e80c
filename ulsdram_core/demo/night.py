"""The catalogue one night later: some rows changed, some broken, some gone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from io import BytesIO

from PIL import Image, ImageOps

from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.product import FIRST_NIGHT, DemoProduct
from ulsdram_core.schema import GoldSpan


class Fate(StrEnum):
    """What became of a product over night."""

    UNCHANGED = "unchanged"
    TITLE_CHANGED = "title_changed"
    PICTURE_CHANGED = "picture_changed"
    PICTURE_TRUNCATED = "picture_truncated"
    PICTURE_EMPTY = "picture_empty"
    PICTURE_WRONG_TYPE = "picture_wrong_type"
    VANISHED = "vanished"


_BROKEN = (Fate.PICTURE_TRUNCATED, Fate.PICTURE_EMPTY, Fate.PICTURE_WRONG_TYPE)


@dataclass(frozen=True, slots=True)
class NightRow:
    """One product of the first night and its row in the second; a vanished one has no row."""

    product_id: str
    fate: Fate
    product: DemoProduct | None


def second_night(
    products: Iterable[DemoProduct],
    *,
    seed: int = 1,
    changed: float = 0.01,
    broken: float = 0.005,
    vanished: float = 0.005,
) -> Iterator[NightRow]:
    """Return each product's second night, in order; a fate depends on seed and product_id only.

    `changed` (a new title or picture), `broken` (a picture) and `vanished` are shares of the
    products. One without a picture keeps having none: its title changes instead.
    """
    if min(changed, broken, vanished) < 0 or changed + broken + vanished > 1:
        raise ValueError(
            f"found changed {changed}, broken {broken}, vanished {vanished}, expected shares of "
            "0 or more that sum to at most 1; lower them"
        )
    shares = (vanished, broken, changed)
    return (_next_night(product, seed, shares) for product in products)


def _next_night(product: DemoProduct, seed: int, shares: tuple[float, float, float]) -> NightRow:
    dice = Dice(seed, "night", product.product_id)
    fate = _draw_fate(shares, dice, has_picture=product.picture is not None)
    return NightRow(product.product_id, fate, _apply(product, fate, dice))


def _draw_fate(shares: tuple[float, float, float], dice: Dice, *, has_picture: bool) -> Fate:
    vanished, broken, changed = shares
    roll = dice.between(0, 1)
    if roll < vanished:
        return Fate.VANISHED
    if roll < vanished + broken:
        return dice.choose(_BROKEN) if has_picture else Fate.TITLE_CHANGED
    if roll < vanished + broken + changed:
        is_picture = has_picture and dice.chance(0.5)
        return Fate.PICTURE_CHANGED if is_picture else Fate.TITLE_CHANGED
    return Fate.UNCHANGED


def _apply(product: DemoProduct, fate: Fate, dice: Dice) -> DemoProduct | None:
    if fate is Fate.VANISHED:
        return None
    if fate is Fate.UNCHANGED:
        return product
    updated = replace(product, updated_at=FIRST_NIGHT + timedelta(minutes=dice.integer(1, 1_400)))
    if fate is Fate.TITLE_CHANGED:
        return _change_title(updated, dice)
    assert product.picture is not None
    if fate is Fate.PICTURE_CHANGED:
        return _mirror_picture(updated, product.picture, dice)
    return replace(updated, picture=_break_picture(product.picture, fate, dice))


def _change_title(product: DemoProduct, dice: Dice) -> DemoProduct:
    """Return the title with a code before or after it; the gold moves along."""
    code = f"({dice.integer(100, 999)})"
    if dice.chance(0.5):
        return replace(product, title=f"{product.title} {code}")
    shift = len(code) + 1
    gold = tuple(
        GoldSpan(span.attribute, span.value, span.start + shift, span.end + shift, span.source)
        if span.source == "title"
        else span
        for span in product.gold
    )
    return replace(product, title=f"{code} {product.title}", gold=gold)


def _mirror_picture(product: DemoProduct, data: bytes, dice: Dice) -> DemoProduct:
    """Return the picture seen in a mirror, encoded anew."""
    stream = BytesIO()
    with Image.open(BytesIO(data)) as picture:
        side = picture.width
        ImageOps.mirror(picture).save(stream, "JPEG", quality=dice.integer(60, 90))
    assert product.box is not None
    left, top, right, bottom = product.box
    return replace(product, picture=stream.getvalue(), box=(side - right, top, side - left, bottom))


def _break_picture(data: bytes, fate: Fate, dice: Dice) -> bytes:
    if fate is Fate.PICTURE_EMPTY:
        return b""
    if fate is Fate.PICTURE_WRONG_TYPE:
        return b"<html><body><h1>404 Not Found</h1></body></html>"
    return data[: int(len(data) * dice.between(0.1, 0.6))]
