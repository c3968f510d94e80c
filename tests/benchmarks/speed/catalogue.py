"""Listings to extract from: the demo catalogue's texts, and pictures drawn once for a pool.

Drawing a picture of 224 px costs more than decoding it a hundred times, so a few are drawn and a
trailing number, which no decoder reads, makes the bytes of each listing its own.
"""

import io
from functools import cache

import numpy as np
from PIL import Image

from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.schema import Product

POOL = 16


@cache
def drawn_pictures(size: int, count: int = POOL) -> tuple[bytes, ...]:
    """Encoded pictures of the demo catalogue, `size` pixels a side."""
    config = DemoConfig(num_products=count, seed=7, picture_size=size, missing_pictures=0.0)
    return tuple(product.picture or b"" for product in generate(config))


def listings(count: int, *, size: int, seed: int = 0, shared: float = 0.0) -> list[Product]:
    """Labelled products with one picture each.

    `shared`: share of listings that show, byte for byte, the picture of the listing before.
    """
    pool = drawn_pictures(size)
    texts = generate(DemoConfig(num_products=count, seed=seed, with_pictures=False, ambiguous=0.0))
    dice = np.random.default_rng(seed)
    products: list[Product] = []
    for number, listing in enumerate(texts):
        picture = pool[number % len(pool)] + str(number).encode()
        if products and dice.random() < shared:
            picture = products[-1].pictures[0]
        row = listing.to_product()
        products.append(
            Product(row.product_id, row.texts, (picture,), row.category, row.gold, row.specs)
        )
    return products


def photo(width: int, height: int) -> bytes:
    """A JPEG with about as many bytes per pixel as a shop photograph."""
    dice = np.random.default_rng(0)
    blobs = dice.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth + dice.normal(0, 2, smooth.shape)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
