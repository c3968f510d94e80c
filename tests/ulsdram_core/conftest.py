"""Tiny seeded products and models that the core's tests share."""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from ulsdram_core.batch import Batch, Example, collate
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.extractor import Extractor
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.fitting import FitConfig, fit
from ulsdram_core.image import ImageConfig
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.model import UlsDram
from ulsdram_core.parts import ExtractorConfig, ModelParts, assemble
from ulsdram_core.schema import GoldSpan, Product
from ulsdram_core.text import TextProcessor

COLORS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 180, 60)}
MATERIALS = ("cotton", "wool", "leather", "silk")
PICTURE_SIZE = 32

PartsMaker = Callable[..., ModelParts]


def _load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"ulsdram_core_tests_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The slow second implementation, tests/ulsdram_core/reference.py."""
    return _load("reference")


def draw_png(color: tuple[int, int, int], seed: int) -> bytes:
    """A noisy square of one colour."""
    noise = np.random.default_rng(seed).integers(-25, 25, (PICTURE_SIZE, PICTURE_SIZE, 3))
    pixels = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_product(number: int) -> Product:
    """A labelled product: 0 to 3 pictures, a short or a long title, sometimes a description."""
    color = list(COLORS)[number % 3]
    material = MATERIALS[number % 4]
    words = ["Acme", color, material, "shirt", f"no{number}", *["very", "fine"] * (number % 5)]
    title = " ".join(words)
    texts = {"title": title}
    if number % 3 == 1:
        texts["description"] = f"soft {material} for all seasons, size {number}"
    gold = [_gold("color", color, title), _gold("material", material, title)]
    if number % 4 == 2:
        gold = gold[:1]
    pictures = tuple(draw_png(COLORS[color], number + i) for i in range(number % 4))
    category = "shirts" if number % 2 else "shoes"
    return Product(str(number), texts, pictures, category, tuple(gold))


def _gold(attribute: str, value: str, title: str) -> GoldSpan:
    start = title.index(value)
    return GoldSpan(attribute, value, start, start + len(value))


@pytest.fixture(scope="session")
def products() -> list[Product]:
    """Twelve labelled products, all different in shape."""
    return [make_product(number) for number in range(12)]


@pytest.fixture(scope="session")
def labels() -> LabelSet:
    """Five attributes; `size` only of shirts, `heel` only of shoes."""
    return LabelSet(
        attributes=("color", "material", "size", "sleeve_length", "heel"),
        category_attributes={
            "shirts": ("color", "material", "size", "sleeve_length"),
            "shoes": ("color", "material", "heel"),
        },
    )


@pytest.fixture(scope="session")
def tokenizer(products: list[Product], labels: LabelSet) -> PreTrainedTokenizerFast:
    texts = [text for product in products for text in product.texts.values()]
    return build_tokenizer([*texts, *labels.attributes], vocab_size=200)


def make_config(
    fusion: str = "tir", policy: str = "prototype", tagger: str = "bilstm_crf", **changes: object
) -> ExtractorConfig:
    """A tiny model's config; `changes` replace whole sections, `model` is merged."""
    sees = fusion != "none"
    model: dict[str, object] = {
        "text_encoder": {"hidden": 16, "layers": 2, "heads": 2},
        "image_encoder": {"architecture": "tiny", "width": 8} if sees else None,
        "fusion": {"kind": fusion, "heads": 2, "dim": 8, "tir": {"dim": 8}},
        "policy": {"kind": policy},
        "tagger": {"kind": tagger},
    }
    model |= changes.pop("model", {})  # type: ignore[operator]
    sections: dict[str, object] = {
        "model": model,
        "text": {"sources": ("title", "description")},
        "image": ImageConfig(size=PICTURE_SIZE) if sees else None,
    }
    return ExtractorConfig.model_validate(sections | changes)


@torch.no_grad()
def randomise(model: UlsDram, seed: int = 0, std: float = 0.2) -> UlsDram:
    """Give every weight a size that shows in the output; initial ones are often near zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        if "norm" in name.lower() and name.endswith("weight"):
            parameter.add_(1.0)
    return model.eval()


@pytest.fixture(scope="session")
def config_of() -> Callable[..., ExtractorConfig]:
    return make_config


@pytest.fixture(scope="session")
def parts_of(labels: LabelSet, tokenizer: PreTrainedTokenizerFast) -> PartsMaker:
    """make_parts(fusion, policy, tagger, **sections) with weights that all matter."""

    def make_parts(*kinds: str, **changes: object) -> ModelParts:
        torch.manual_seed(0)
        parts = assemble(make_config(*kinds, **changes), labels, tokenizer)
        randomise(parts.model)
        return parts

    return make_parts


@pytest.fixture(scope="session")
def extractor_of(parts_of: PartsMaker) -> Callable[..., Extractor]:
    """The same as an Extractor in fp32."""

    def make_extractor(*kinds: str, **changes: object) -> Extractor:
        return Extractor(parts_of(*kinds, **changes), device="cpu", precision="fp32")

    return make_extractor


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    return draw_png


@pytest.fixture(scope="session")
def examples_of() -> Callable[[ModelParts, list[Product]], list[Example]]:
    """Labelled examples, one per window."""

    def make_examples(parts: ModelParts, products: list[Product]) -> list[Example]:
        text = TextProcessor(parts.tokenizer, parts.config.text)
        return list(ExampleBuilder(text, parts.labels, parts.config.image)(products))

    return make_examples


@pytest.fixture(scope="session")
def collated() -> Callable[[list[Example]], Batch]:
    return lambda examples: collate(examples, picture_size=PICTURE_SIZE)


@pytest.fixture(scope="session")
def demo_products() -> list[Product]:
    """64 products of the demo catalogue with their titles' gold."""
    config = DemoConfig(num_products=64, picture_size=PICTURE_SIZE)
    rows = [row.to_product() for row in generate(config)]
    return [replace(row, gold=row.gold_for("title")) for row in rows]


@pytest.fixture(scope="session")
def demo_extractor(demo_products: list[Product]) -> Extractor:
    """A tiny ULS-DRAM (TIR, prototypes, BiLSTM-CRF) trained until it knows demo_products."""
    config = ExtractorConfig.model_validate(
        {
            "model": {
                "text_encoder": {"hidden": 64, "layers": 1, "dropout": 0.0},
                "image_encoder": {"architecture": "tiny", "width": 8},
                "fusion": {"kind": "tir", "tir": {"dim": 32}},
                "tagger": {"hidden": 32, "dropout": 0.0},
            },
            "image": {"size": PICTURE_SIZE},
        }
    )
    torch.manual_seed(0)
    tokenizer = build_tokenizer([row.texts["title"] for row in demo_products], vocab_size=600)
    parts = assemble(config, LabelSet.from_products(demo_products), tokenizer)
    text = TextProcessor(tokenizer, config.text)
    examples = list(ExampleBuilder(text, parts.labels, config.image)(demo_products))
    optim = {"text_rate": 3e-3, "image_rate": 5e-4}
    options = {"epochs": 40, "batch_size": 8, "precision": "fp32", "picture_dropout": 0.0}
    for _ in fit(parts, examples, FitConfig.model_validate(options | {"optim": optim})):
        pass
    return Extractor(parts, device="cpu", precision="fp32")
