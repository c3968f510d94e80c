"""The benchmark's plain pipeline gives the extractor's answers, so that it is a fair peer."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from speed.agreement import agreement
from speed.catalogue import listings
from speed.fitted import TINY, gold_found, make
from speed.released import ReleasedPipeline

from ulsdram_core.extractor import Extractor


@pytest.fixture(scope="module")
def parts():
    torch.set_num_threads(1)
    return make(TINY)


@pytest.fixture(scope="module")
def products():
    return listings(24, size=TINY.picture_size, seed=5)


def test_heads_on_random_encoders_find_values(parts):
    seen = listings(16, size=TINY.picture_size, seed=3)
    assert gold_found(Extractor(parts), seen) > 0.3


def test_the_plain_pipeline_gives_the_same_values(parts, products):
    ours = Extractor(parts).extract(products)
    found = agreement(products, ours, ReleasedPipeline(parts).extract_with_confidence(products))
    assert found.num_spans > 20
    assert found.equal == 1.0
    assert found.confidence < 1e-4
