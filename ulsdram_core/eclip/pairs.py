"""Pairs of a text and a picture, with the number of the product that they list."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ulsdram_core.batch import Batch, Example, collate
from ulsdram_core.schema import Product
from ulsdram_core.seeding import generator_of
from ulsdram_core.text import TextError, TextProcessor, Window


@dataclass(frozen=True, slots=True)
class Pair:
    """One listing: its text's first window, its pictures, and which product it is."""

    window: Window
    pictures: tuple[np.ndarray, ...]
    """uint8 [S, S, 3] each, at least one."""
    catalog: int


@dataclass(frozen=True)
class PairBatch:
    """A stream: pairs as tensors."""

    batch: Batch
    catalog_B: Tensor

    def to(self, device: torch.device | str) -> "PairBatch":
        """Copy to a device."""
        return PairBatch(self.batch.to(device), self.catalog_B.to(device))


def catalog_number(catalog_id: str | None, product_id: str) -> int:
    """Return 63 bits that stand for a catalogue entry; a listing without one stands for itself."""
    key = f"catalog {catalog_id}" if catalog_id is not None else f"product {product_id}"
    digest = hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_pair(
    product: Product, pictures: Sequence[np.ndarray], text: TextProcessor, catalog_id: str | None
) -> Pair | None:
    """Return a product with decoded pictures as a pair; None where text or picture cannot be used.

    A text longer than one window is read up to there: what a product is stands at its beginning.
    """
    try:
        windows = text.encode(product.texts)
    except TextError:
        return None
    if not windows or not pictures:
        return None
    return Pair(windows[0], tuple(pictures), catalog_number(catalog_id, product.product_id))


def collate_pairs(pairs: Sequence[Pair], *, picture_size: int) -> PairBatch:
    """Pad pairs into one stream."""
    examples = [Example(pair.window, pair.pictures) for pair in pairs]
    catalogs = torch.tensor([pair.catalog for pair in pairs], dtype=torch.long)
    batch = replace(collate(examples, picture_size=picture_size), gold=None, class_tags_BU=None)
    return PairBatch(batch, catalogs)


def draw_streams(
    pairs: Sequence[Pair], *, stream_pairs: int, picture_size: int, seed: int
) -> list[PairBatch]:
    """Cut one batch into streams; of a listing's pictures one is drawn."""
    chance = generator_of(seed, "picture")
    chosen = [_one_picture(pair, chance) for pair in pairs]
    # Alike lengths in a stream: the loss sees the whole batch, so the cut is free.
    chosen.sort(key=lambda pair: len(pair.window.piece_ids))
    return [
        collate_pairs(chosen[start : start + stream_pairs], picture_size=picture_size)
        for start in range(0, len(chosen), stream_pairs)
    ]


def _one_picture(pair: Pair, chance: torch.Generator) -> Pair:
    if len(pair.pictures) == 1:
        return pair
    place = int(torch.randint(len(pair.pictures), (1,), generator=chance))
    return replace(pair, pictures=(pair.pictures[place],))


def order_pairs(catalogs: Sequence[int], generator: torch.Generator, *, group: int) -> list[int]:
    """Draw an order of the pairs that keeps up to `group` listings of a product side by side.

    So they meet in one batch, where the targets can tell them from mismatches; more of them would
    crowd out other products.
    """
    order = torch.randperm(len(catalogs), generator=generator).tolist()
    if group == 1:
        return order
    members: dict[int, list[int]] = {}
    for place in order:
        members.setdefault(catalogs[place], []).append(place)
    groups = [
        places[start : start + group]
        for places in members.values()
        for start in range(0, len(places), group)
    ]
    shuffled = torch.randperm(len(groups), generator=generator).tolist()
    return [place for chosen in shuffled for place in groups[chosen]]
