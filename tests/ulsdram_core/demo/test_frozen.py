"""The demo catalogue is frozen: a digest that moves needs a new DEMO_VERSION.

Pixels are digested before encoding, so that the JPEG library may change. Should a new Pillow
rasterise shapes otherwise, the texts' digest must still hold.
"""

from hashlib import sha256

import pytest

from ulsdram_core.demo import DEMO_VERSION, DemoConfig, draw_listing, generate

TEXTS = {
    "en": "1b4b00d3af4d3fc0",
    "zh": "e5a2fcf33df6f266",
}
PIXELS = {
    48: "439cf440d6222cdc",
    96: "b50752c0fe064203",
}


def digest_texts(language):
    digest = sha256()
    for product in generate(
        DemoConfig(num_products=400, language=language, with_pictures=False, seed=11)
    ):
        gold = [(s.source, s.attribute, s.value, s.start, s.end) for s in product.gold]
        row = (
            product.product_id,
            product.catalog_id,
            product.title,
            product.description,
            product.category,
            product.specs,
            gold,
            product.trait,
            product.updated_at.isoformat(),
        )
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def digest_pixels(size):
    digest = sha256()
    config = DemoConfig(picture_size=size, seed=11)
    for index in range(150):
        drawing = draw_listing(config, index)
        digest.update(drawing.pixels.tobytes())
        digest.update(repr(drawing.box).encode())
    return digest.hexdigest()[:16]


def test_version():
    assert DEMO_VERSION == 1


@pytest.mark.parametrize("language", TEXTS)
def test_texts_and_gold_are_frozen(language):
    assert digest_texts(language) == TEXTS[language]


@pytest.mark.parametrize("size", PIXELS)
def test_pixels_are_frozen(size):
    assert digest_pixels(size) == PIXELS[size]
