"""The alignment term against a slow reading of its definition, and where it is refused."""

import math
from dataclasses import replace

import pytest
import torch

from ulsdram_core.fit.alignment import alignment
from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.pairs import RangeConfig, training_pairs


@pytest.fixture
def labelled(parts_of, examples_of, products):
    """A function: parts with this fusion and their examples."""

    def build(*kinds):
        parts = parts_of(*kinds)
        return parts, examples_of(parts, products)

    return build


def slow_alignment(parts, batch, output, scale):
    """Every (picture, word) by itself."""
    model = parts.model
    shown = []  # the words of each window's values
    first = {}
    for window in range(batch.num_windows):
        words = set()
        for place in (batch.gold.window_G == window).nonzero().flatten().tolist():
            for unit in (batch.gold.tags_GU[place] > 0).nonzero().flatten().tolist():
                piece = int(batch.unit_piece_BU[window, unit])
                words.add(int(batch.piece_ids_BL[window, piece]))
        shown.append(words)
        for piece, word in enumerate(batch.piece_ids_BL[window].tolist()):
            if word in words:
                first.setdefault(word, (window, piece))
    vocabulary = sorted(set().union(*shown))
    pictures = output.pictures
    match = torch.zeros(len(pictures.window_M), len(vocabulary))
    wanted = torch.zeros_like(match)
    for m, window in enumerate(pictures.window_M.tolist()):
        for w, word in enumerate(vocabulary):
            query = model.fusion.region_query(output.embedded_BLH[first[word]])
            keys = model.fusion.region_key(pictures.regions_MRV[m])
            scores = keys @ query / math.sqrt(len(query))
            match[m, w] = scale * scores.exp().mean().log()
            wanted[m, w] = word in shown[window]
    total = 0.0
    for logits, target in ((match, wanted), (match.T, wanted.T)):
        rows = [
            -(row.log_softmax(0) * goal / goal.sum()).sum()
            for row, goal in zip(logits, target, strict=True)
            if goal.any()
        ]
        total += sum(rows) / len(rows) / 2
    return len(match) * total


@pytest.fixture
def seen(labelled, collated):
    """Parts, a batch and the model's output for it."""
    parts, examples = labelled("tir")
    batch = collated(examples)
    output = parts.model(batch, lambda logits: training_pairs(logits, batch.gold, RangeConfig())[0])
    return parts, batch, output


def test_it_equals_its_definition(seen):
    parts, batch, output = seen
    found = alignment(parts.model.fusion, output, batch, scale=3.0)
    slow = float(slow_alignment(parts, batch, output, 3.0).detach())
    assert float(found.detach()) == pytest.approx(slow, rel=1e-4)


def test_a_batch_without_pictures_or_values_adds_nothing(seen, collated, labelled):
    parts, batch, output = seen
    blind = batch.without_pictures(torch.ones(len(batch.picture_M), dtype=torch.bool))
    unseen = parts.model(blind, lambda logits: training_pairs(logits, blind.gold, RangeConfig())[0])
    assert float(alignment(parts.model.fusion, unseen, blind, scale=3.0)) == 0.0
    nothing = collated([replace(example, gold=()) for example in labelled("tir")[1]])
    assert float(alignment(parts.model.fusion, output, nothing, scale=3.0)) == 0.0


def test_the_loss_adds_it_by_its_weight(seen):
    parts, batch, _ = seen
    plain, aligned = (
        ExtractionLoss(LossConfig(alignment_weight=weight), RangeConfig())(parts.model, batch)
        for weight in (0.0, 0.5)
    )
    assert float(aligned.total.detach()) > float(plain.total.detach())
    assert aligned.num_terms == plain.num_terms
    aligned.total.backward()
    assert parts.model.fusion.region_key.weight.grad.abs().sum() > 0


def test_other_fusions_have_nothing_to_align(labelled, collated):
    parts, examples = labelled("concat")
    loss = ExtractionLoss(LossConfig(alignment_weight=1.0), RangeConfig())
    with pytest.raises(ValueError, match="set it to 0"):
        loss(parts.model, collated(examples))
