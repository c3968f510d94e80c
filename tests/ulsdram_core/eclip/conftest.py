"""A tiny dual encoder and pairs of the demo catalogue."""

from collections.abc import Callable

import pytest
import torch
from eclip_in_memory import read_pairs

from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.eclip.pairs import Pair, PairBatch, collate_pairs
from ulsdram_core.eclip.parts import EclipConfig, EclipParts, assemble_eclip
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.schema import Product
from ulsdram_core.text import TextProcessor

SIZE = 32
torch.set_num_threads(1)


def make_config(**changes: object) -> EclipConfig:
    model: dict[str, object] = {
        "text_encoder": {"hidden": 32, "layers": 2, "heads": 2, "dropout": 0.1},
        "image_encoder": {"architecture": "tiny", "width": 8},
        "dim": 16,
    }
    model |= changes.pop("model", {})  # type: ignore[operator]
    return EclipConfig.model_validate({"model": model, "image": {"size": SIZE}, **changes})


@pytest.fixture(scope="session")
def listings() -> list[tuple[Product, str]]:
    """Demo listings with their catalogue ids; many of them are duplicates."""
    config = DemoConfig(num_products=64, picture_size=SIZE, duplicates=0.5)
    return [(row.to_product(), row.catalog_id) for row in generate(config)]


@pytest.fixture(scope="session")
def parts_of(listings) -> Callable[..., EclipParts]:
    """make_parts(**changes of the config): a fresh, seeded model."""
    tokenizer = build_tokenizer([p.texts["title"] for p, _ in listings], 500)

    def make_parts(**changes: object) -> EclipParts:
        torch.manual_seed(0)
        return assemble_eclip(make_config(**changes), tokenizer)

    return make_parts


@pytest.fixture
def parts(parts_of) -> EclipParts:
    return parts_of()


@pytest.fixture(scope="session")
def pairs(listings, parts_of) -> list[Pair]:
    """All usable pairs."""
    parts = parts_of()
    text = TextProcessor(parts.tokenizer, parts.config.text)
    return list(read_pairs(listings, text, parts.config.image))


@pytest.fixture(scope="session")
def cut() -> Callable[..., list[PairBatch]]:
    """cut(pairs, n): n streams of nearly equal size, in order."""

    def cut_pairs(pairs: list[Pair], num_streams: int) -> list[PairBatch]:
        size = -(-len(pairs) // num_streams)
        return [
            collate_pairs(pairs[i : i + size], picture_size=SIZE)
            for i in range(0, len(pairs), size)
        ]

    return cut_pairs
