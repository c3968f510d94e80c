"""Where pictures stand in the sequence; the numbers are checked in test_model.py."""

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.method.fusion import ConcatFusion, FusionConfig
from ulsdram_core.method.regions import PictureRegions

B, L, H, V, R = 3, 4, 8, 5, 2


@pytest.fixture
def pictures():
    """Window 0 has one picture, window 1 none, window 2 two."""
    torch.manual_seed(0)
    return PictureRegions(torch.randn(3, R, V), torch.tensor([2, 0, 2]), B)


def test_regions_follow_the_text_slot_by_slot(pictures):
    fusion = ConcatFusion(H, V)
    text, mask = torch.randn(B, L, H), torch.ones(B, L, dtype=torch.bool)
    mask[1, 2:] = False
    sequence = fusion.early(text, mask, pictures)
    assert_close(sequence[:, :L], text)
    regions = fusion.project(pictures.regions_MRV) + fusion.region_type
    assert_close(sequence[2, L:], regions[[0, 2]].flatten(0, 1))
    assert_close(sequence[0, L : L + R], regions[1])
    used = fusion.sequence_mask(mask, pictures)
    assert used.int().tolist() == [
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("kind", ["concat", "self_attention"])
def test_without_pictures_the_sequence_is_the_text(kind):
    fusion = FusionConfig(kind=kind, heads=2).build(H, V)
    none = PictureRegions(torch.zeros(0, R, V), torch.zeros(0, dtype=torch.long), B)
    text, mask = torch.randn(B, L, H), torch.ones(B, L, dtype=torch.bool)
    assert fusion.early(text, mask, none).shape == (B, L, H)
    assert fusion.sequence_mask(mask, none).shape == (B, L)


def test_attention_to_regions_is_cut_out_by_picture(pictures):
    fusion = ConcatFusion(H, V)
    attention = torch.arange(float(B * 8 * 8)).view(B, 8, 8)
    found = fusion.region_scores(attention, L, pictures)
    assert_close(found[0], attention[2, :L, L : L + R])
    assert_close(found[1], attention[0, :L, L : L + R])
    assert_close(found[2], attention[2, :L, L + R :])


def test_the_gate_can_close(pictures):
    fusion = FusionConfig(kind="gated", dim=4).build(H, V)
    fusion.gate_text.bias.data.fill_(-1e4)
    text, mask = torch.randn(B, L, H), torch.ones(B, L, dtype=torch.bool)
    none = PictureRegions(torch.zeros(0, R, V), torch.zeros(0, dtype=torch.long), B)
    assert_close(fusion.late(text, mask, pictures), fusion.late(text, mask, none))
