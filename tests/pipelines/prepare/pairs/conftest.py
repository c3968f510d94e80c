"""A demo catalogue with planted noise and duplicates, as a products table."""

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.demo.tables import write_products
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig, DemoProduct, generate

torch.set_num_threads(1)


def picture_of(pixels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class Noisy:
    """Where the table lies and what was planted: product id -> reason."""

    folder: Path
    products: list[DemoProduct]
    planted: dict[str, str]


@pytest.fixture(scope="session")
def noisy(tmp_path_factory) -> Noisy:
    """120 listings; some are noise, two repeat others, two show others' very picture."""
    config = DemoConfig(num_products=120, picture_size=96, duplicates=0.3, missing_pictures=0.0)
    products = list(generate(config))
    planted: dict[str, str] = {}

    def plant(place: int, reason: str | None, **changes) -> None:
        products[place] = replace(products[place], gold=(), **changes)
        if reason:
            planted[products[place].product_id] = reason

    sign = np.zeros((96, 96, 3), np.uint8)
    sign[30:60, 20:80] = 200
    for number in range(20):
        plant(60 + number, "placeholder_picture", picture=picture_of(sign))
    plant(1, "short_text", title="!!! shirt ...")
    plant(2, "blank_picture", picture=picture_of(np.full((96, 96, 3), 250, np.uint8)))
    plant(3, "small_picture", picture=picture_of(np.asarray(
        np.random.default_rng(0).integers(0, 255, (20, 20, 3)), np.uint8)))  # fmt: skip
    plant(4, "undecodable_picture", picture=b"not a picture")
    plant(5, "no_picture", picture=None)
    repeated = products[100]
    words = repeated.title.split()
    plant(101, "repeated_pair", picture=repeated.picture, title=" ".join(reversed(words)) + " !")
    plant(102, None, picture=products[103].picture)
    folder = tmp_path_factory.mktemp("noisy")
    write_products(products, Storage.of(folder / "products.parquet"))
    return Noisy(folder, products, planted)
