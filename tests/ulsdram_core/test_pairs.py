"""The attribute range: Eq. 7, its caps, and what teaches the tagger."""

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.pairs import GoldPairs, RangeConfig, above, predicted_pairs, training_pairs

# scores .9 .2 .7 .5 | .1 .1 .6 .8
LOGITS = torch.logit(torch.tensor([[0.9, 0.2, 0.7, 0.5], [0.1, 0.1, 0.6, 0.8]]))


def listed(pairs):
    return list(zip(pairs.window_N.tolist(), pairs.attribute_N.tolist(), strict=True))


@pytest.fixture
def gold():
    """Window 0 holds attributes 0 and 1, window 1 attribute 3."""
    tags = torch.tensor([[1, 2, 0], [0, 1, 0], [0, 0, 1]])
    return GoldPairs(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 3]), tags)


def test_range_is_what_exceeds_the_threshold():
    assert listed(predicted_pairs(LOGITS, 0.5, most=9)) == [(0, 0), (0, 2), (1, 2), (1, 3)]


def test_each_attribute_may_have_its_own_threshold():
    thresholds = torch.tensor([0.95, 0.1, 0.5, 0.5])
    assert listed(predicted_pairs(LOGITS, thresholds, most=9)) == [(0, 1), (0, 2), (1, 2), (1, 3)]


def test_range_is_capped_to_the_best():
    assert listed(predicted_pairs(LOGITS, 0.0, most=1)) == [(0, 0), (1, 3)]
    assert listed(predicted_pairs(LOGITS, 0.0, most=0)) == []
    assert above(torch.sigmoid(LOGITS), 0.5, 3).sum() == 4


def test_range_keeps_to_the_category():
    allowed = torch.tensor([[True, True, False, True], [True, True, True, False]])
    found = predicted_pairs(LOGITS, 0.0, most=9, allowed_BC=allowed)
    assert listed(found) == [(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 2)]


def test_gold_and_wrong_attributes_teach(gold):
    pairs, tags = training_pairs(LOGITS, gold, RangeConfig())
    assert listed(pairs) == [(0, 0), (0, 1), (1, 3), (0, 2), (1, 2)]
    assert_close(tags[:3], gold.tags_GU)
    assert tags[3:].eq(0).all()


def test_released_training_skips_what_the_head_missed(gold):
    pairs, tags = training_pairs(LOGITS, gold, RangeConfig(training="released"))
    assert listed(pairs) == [(0, 0), (1, 3), (0, 2), (1, 2)]
    assert_close(tags[:2], gold.tags_GU[[0, 2]])


@pytest.mark.parametrize("training", ["gold_and_wrong", "released"])
def test_an_untrained_head_over_2000_attributes_stays_small(training):
    logits = torch.rand(8, 2000)  # every score above .5
    gold = GoldPairs(torch.arange(8), torch.arange(8), torch.ones(8, 3, dtype=torch.long))
    pairs, tags = training_pairs(logits, gold, RangeConfig(training=training, max_wrong=4))
    assert len(pairs) == len(tags) == 8 * (1 + 4)
    wrong = listed(pairs)[8:]
    assert not set(wrong) & {(i, i) for i in range(8)}


def test_no_wrong_ones_at_all(gold):
    pairs, _ = training_pairs(LOGITS, gold, RangeConfig(max_wrong=0))
    assert listed(pairs) == [(0, 0), (0, 1), (1, 3)]


def test_choosing_pairs_needs_no_gradient(gold):
    logits = LOGITS.clone().requires_grad_()
    pairs, tags = training_pairs(logits, gold, RangeConfig())
    assert not pairs.window_N.requires_grad
    assert not tags.requires_grad


def test_multi_hot(gold):
    assert gold.multi_hot(2, 4).int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("bad", [{"threshold": 1.5}, {"max_attributes": 0}, {"training": "all"}])
def test_nonsense_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RangeConfig(**bad)
