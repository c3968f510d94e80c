"""A small labelled table of demo products, and a small recipe."""

from pathlib import Path

import pytest
import torch

from pipelines.demo.tables import write_splits
from pipelines.lake.storage import Storage
from pipelines.train.extractor.recipe import Recipe, load_recipe
from ulsdram_core.demo import DemoConfig

torch.set_num_threads(1)

SMALL = [
    "model.text_encoder.hidden=32",
    "model.text_encoder.layers=1",
    "model.image_encoder.width=8",
    "image.size=32",
    "fit.epochs=2",
    "fit.batch_size=16",
    "labels.vocab_size=500",
]


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory) -> Path:
    """train/ valid/ test/ of 120 demo products."""
    folder = tmp_path_factory.mktemp("demo")
    write_splits(DemoConfig(num_products=120, picture_size=32), Storage.of(folder))
    return folder


@pytest.fixture(scope="session")
def small_overrides() -> list[str]:
    """--set values that shrink the recipe `tiny` to seconds."""
    return list(SMALL)


@pytest.fixture(scope="session")
def small_recipe(small_overrides) -> Recipe:
    """The recipe `tiny`, smaller."""
    return load_recipe("tiny", small_overrides)
