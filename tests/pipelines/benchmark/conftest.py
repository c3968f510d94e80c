"""A labelled folder of demo products, and a benchmark small enough for tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.benchmark.paper.data import BenchmarkData
from pipelines.benchmark.paper.settings import BenchmarkConfig, load_benchmark
from pipelines.benchmark.paper.source import Source
from pipelines.demo.tables import write_products
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig, generate

SMALL = (
    "settings.epochs=1",
    "settings.batch_size=8",
    "settings.picture_size=32",
    "settings.vocab_size=400",
    "settings.text_encoder={name='tiny', hidden=16, layers=1, heads=2, dropout=0.0}",
    "settings.second_text_encoder={name='tiny', hidden=24, layers=1, heads=2, dropout=0.0}",
    "settings.image_encoder={architecture='tiny', width=4}",
    "settings.words={name='bilstm', hidden=16, layers=1}",
    "kplug.epochs=1",
    "kplug.decoder_layers=1",
    "ranker.dim=8",
    "ranker.filters=8",
    "ranker.epochs=1",
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def config_of() -> Callable[..., BenchmarkConfig]:
    return lambda *changes: load_benchmark(overrides=(*SMALL, *changes), encoders={})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """24 products to train on, 8 others to be scored on."""
    folder = tmp_path_factory.mktemp("prepared")
    rows = list(generate(DemoConfig(num_products=32, picture_size=32)))
    write_products(rows[:24], Storage.of(folder / "train" / "part-0.parquet"))
    write_products(rows[24:], Storage.of(folder / "test" / "part-0.parquet"))
    return folder


@pytest.fixture(scope="session")
def source_of(prepared, config_of) -> Callable[..., Source]:
    """source_of(*changes of the recipe, **fields of the source)."""
    return lambda *changes, **fields: Source(
        **{"data": str(prepared), "config": config_of(*changes)} | fields
    )


@pytest.fixture
def data(source_of, tmp_path) -> BenchmarkData:
    return BenchmarkData(source_of(), tmp_path / "cache")
