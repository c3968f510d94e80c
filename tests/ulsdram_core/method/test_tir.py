"""TIR's options and its attention map; the paper's form itself is checked in test_model.py."""

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.method.regions import PictureRegions
from ulsdram_core.method.tir import TirConfig, TirFusion, attend

B, L, H, V, R = 2, 4, 6, 5, 3


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    return PictureRegions(torch.randn(3, R, V), torch.tensor([1, 1, 1]), B)


@pytest.fixture
def text():
    return torch.randn(B, L, H, generator=torch.Generator().manual_seed(1))


def mask_of(*lengths):
    return torch.arange(L)[None] < torch.tensor(lengths)[:, None]


def test_weights_start_small_as_in_the_released_code():
    torch.manual_seed(0)
    fusion = TirFusion(TirConfig(), 256, 512)
    for layer in (fusion.text_query, fusion.text_value, fusion.region_key, fusion.region_value):
        assert layer.bias is None
        assert abs(float(layer.weight.std()) - 0.01) < 5e-4
    assert TirConfig().dim == 200


def test_without_pictures_only_the_text_attends(text, pictures):
    fusion = TirFusion(TirConfig(dim=4, init_std=0.5), H, V)
    none = PictureRegions(torch.zeros(0, R, V), torch.zeros(0, dtype=torch.long), B)
    with_pictures = fusion.early(text, mask_of(4, 4), pictures)
    without = fusion.early(text, mask_of(4, 4), none)
    assert_close(with_pictures[0], without[0])
    assert (with_pictures[1] - without[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_masked_keys_give_nothing(text, kind):
    short = attend(text[:, :3], text[:, :3], text[:, :3], None, kind)
    masked = attend(text[:, :3], text, text, mask_of(3, 3), kind)
    assert_close(masked, short)


def test_softmax_attention_is_a_weighted_mean(text):
    out = attend(text, text, torch.ones(B, L, 2), mask_of(2, 4), "softmax")
    assert_close(out, torch.ones(B, L, 2))


def test_region_scores_are_the_weights_of_eq_4(text, pictures):
    fusion = TirFusion(TirConfig(dim=4, init_std=0.5), H, V)
    scores = fusion.region_scores(text, pictures)
    assert scores.shape == (3, L, R)
    query = text[1] @ fusion.region_query.weight.T
    key = pictures.regions_MRV[2] @ fusion.region_key.weight.T
    assert_close(scores[2], query @ key.T / 2.0)
    mixed = (scores @ fusion.region_value(pictures.regions_MRV)).mean(0)
    fusion.text_value.weight.data.zero_()
    assert_close(fusion.early(text, mask_of(4, 4), pictures)[1], text[1] + fusion.out(mixed))


def test_softmax_region_scores_sum_to_one(text, pictures):
    fusion = TirFusion(TirConfig(dim=4, attention="softmax"), H, V)
    assert_close(fusion.region_scores(text, pictures).sum(-1), torch.ones(3, L))


def test_pooled_adds_the_mean_picture_after_the_encoder(text, pictures):
    fusion = TirFusion(TirConfig(dim=4, pooled=True), H, V)
    out = fusion.late(text, mask_of(4, 4), pictures)
    assert_close(out[0], text[0])
    added = fusion.pooled(pictures.regions_MRV.mean((0, 1)))
    assert_close(out[1], text[1] + added)
    assert_close(TirFusion(TirConfig(dim=4), H, V).late(text, mask_of(4, 4), pictures), text)
