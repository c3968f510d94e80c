import polars as pl
import pytest
import torch

from pipelines.benchmark.eclip.tasks import ProbeSettings, System, classify, recognise
from pipelines.benchmark.eclip.vectors import SplitVectors
from ulsdram_core.eclip.embedder import Embedder, Vectors
from ulsdram_core.eclip.parts import EclipConfig, assemble_eclip
from ulsdram_core.encoders.tokenizer import build_tokenizer

CLASSES = ("mug", "shirt")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    encoders = {"text_encoder": {"hidden": 16, "layers": 1, "heads": 2},
                "image_encoder": {"architecture": "tiny", "width": 4}, "dim": 8}  # fmt: skip
    config = EclipConfig.model_validate({"model": encoders, "image": {"size": 32}})
    return Embedder(assemble_eclip(config, build_tokenizer(["a mug", "a shirt"], 100)))


def system_of(embedder, **values) -> System:
    """Splits whose vectors tell `values` apart: a row per value."""
    splits = {}
    for split, column in values.items():
        numbers = [CLASSES.index(value) if value in CLASSES else 0 for value in column]
        vectors = torch.eye(16)[torch.tensor(numbers)] + 0.01
        everything = torch.ones(len(column), dtype=torch.bool)
        found = Vectors(vectors, vectors, everything, everything)
        splits[split] = SplitVectors(pl.DataFrame({"kind": column}), found, None)
    return System("tiny", embedder, splits)


KNOWN = ["mug", "shirt"] * 4


def test_rows_without_a_label_are_left_out_and_counted(embedder):
    test = ["mug", "shirt", None, None, "hat"]
    system = system_of(embedder, train=KNOWN, valid=KNOWN, test=test)
    for figure in classify(system, "kind", ProbeSettings()):
        assert figure.detail == "3 rows, 2 without a label left out"
        if figure.way == "linear probe":
            assert figure.values["accuracy"] == pytest.approx(2 / 3)
            assert figure.values["macro_f1"] == pytest.approx(1)
    figures = recognise(system, "mugs", pl.col("kind") == "mug", ProbeSettings())
    assert {figure.detail for figure in figures} == {"1 of 3 rows, 2 without a label left out"}


def test_a_test_split_without_labels_is_named(embedder):
    system = system_of(embedder, train=KNOWN, valid=KNOWN, test=[None, "hat"])
    with pytest.raises(ValueError, match="no row of test"):
        classify(system, "kind", ProbeSettings())


def test_a_sample_without_positives_is_named(embedder):
    rare = ["mug"] * 50 + ["shirt"]
    system = system_of(embedder, train=rare, valid=KNOWN, test=KNOWN)
    with pytest.raises(ValueError, match=r"2 train rows drawn for 'shirts'.*--probe-rows"):
        recognise(system, "shirts", pl.col("kind") == "shirt", ProbeSettings(max_rows=2))
