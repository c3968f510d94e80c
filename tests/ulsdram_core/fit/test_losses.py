"""The loss's parts, its count, and its gradient over any split of a batch."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.pairs import RangeConfig


@pytest.fixture
def labelled(parts_of, examples_of, products):
    """A function: parts of these kinds and their examples."""

    def build(*kinds, **changes):
        parts = parts_of(*kinds, **changes)
        return parts, examples_of(parts, products)

    return build


def loss_of(parts, batch, weights=None, **range_config):
    return ExtractionLoss(LossConfig(**(weights or {})), RangeConfig(**range_config))(
        parts.model, batch
    )


def test_parts_add_up(labelled, collated):
    parts, examples = labelled("tir")
    batch = collated(examples)
    loss = loss_of(parts, batch, {"attribute_weight": 0.5, "tag_weight": 2.0})
    assert float(loss.total) == pytest.approx(2 * loss.tag + 0.5 * loss.attribute, rel=1e-6)
    num_gold = len(batch.gold.window_G)
    assert num_gold + len(examples) < loss.num_terms <= num_gold + 5 * len(examples)


def test_attribute_loss_is_the_cross_entropy_of_the_range(labelled, collated):
    parts, examples = labelled("none", "none")
    batch = collated(examples)
    logits = parts.model(batch, lambda _: None).logits_BC
    gold = torch.zeros(len(examples), 5)
    for row, example in enumerate(examples):
        gold[row, [span.attribute for span in example.gold]] = 1.0
    wanted = functional.binary_cross_entropy(torch.sigmoid(logits), gold, reduction="sum")
    assert loss_of(parts, batch).attribute == pytest.approx(float(wanted), rel=1e-5)


def test_without_a_policy_the_classes_are_tagged(labelled, collated):
    parts, examples = labelled("none", "none", "softmax")
    batch = collated(examples)
    output = parts.model(batch, lambda _: None)
    per_unit = functional.cross_entropy(
        output.emissions_NUT.flatten(0, 1), batch.class_tags_BU.flatten(), reduction="none"
    )
    wanted = float((per_unit * batch.unit_mask_BU.flatten()).sum())
    loss = loss_of(parts, batch)
    assert loss.tag == pytest.approx(wanted, rel=1e-5)
    assert loss.num_terms == 2 * len(examples)


def test_without_a_head_there_is_no_attribute_loss(labelled, collated):
    parts, examples = labelled("none", "none", "crf", model={"head": "none"})
    assert loss_of(parts, collated(examples)).attribute == 0.0


def test_missed_attributes_teach_the_tagger_unless_released(labelled, collated):
    parts, examples = labelled("none")
    parts.model.head.score.bias.data.fill_(-50.0)  # everything is missed
    batch = collated(examples)
    ours, released = loss_of(parts, batch), loss_of(parts, batch, training="released")
    assert ours.tag > 0
    assert released.tag == 0
    assert released.num_terms == len(examples)
    released.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in parts.model.parameters())


def test_values_without_gold_still_count_windows(labelled, collated):
    parts, examples = labelled("none")
    batch = collated([replace(e, gold=()) for e in examples])
    loss = loss_of(parts, batch, max_wrong=0)
    assert loss.num_terms == len(examples)
    assert loss.total.isfinite()


@pytest.mark.parametrize("kinds", [("tir",), ("concat", "none", "crf"), ("gated", "bert", "crf")])
@pytest.mark.parametrize("training", ["gold_and_wrong", "released"])
def test_halves_sum_to_the_whole(labelled, collated, kinds, training):
    parts, examples = labelled(*kinds)

    def gradients(*batches):
        parts.model.zero_grad()
        losses = [loss_of(parts, batch, training=training, max_wrong=2) for batch in batches]
        sum(loss.total for loss in losses).backward()
        terms = sum(loss.num_terms for loss in losses)
        named = parts.model.named_parameters()
        return sum(float(loss.total) for loss in losses) / terms, terms, {
            name: p.grad.clone() / terms for name, p in named if p.grad is not None
        }  # fmt: skip

    loss, terms, whole = gradients(collated(examples))
    loss_halves, terms_halves, halves = gradients(collated(examples[:5]), collated(examples[5:]))
    assert terms_halves == terms
    assert loss_halves == pytest.approx(loss, rel=1e-5)
    assert halves.keys() == whole.keys()
    for name, gradient in whole.items():
        assert_close(halves[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
