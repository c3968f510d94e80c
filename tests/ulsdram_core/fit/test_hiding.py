"""Pictures and units hidden in training."""

import itertools

import pytest
import torch

from ulsdram_core.fit.hiding import Hiding


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch(parts_of, examples_of, collated, products):
    return collated(examples_of(parts_of("tir"), products) * 30)


def test_pictures_are_hidden_at_the_given_rate(batch):
    kept = Hiding(pictures=0.3)(batch, generator())
    assert len(kept.window_M) / len(batch.window_M) == pytest.approx(0.7, abs=0.05)
    assert len(kept.window_M) == len(kept.picture_M)
    same = Hiding(pictures=0.3)(batch, generator())
    assert same.window_M.tolist() == kept.window_M.tolist()


def test_nothing_is_hidden_by_default(batch):
    assert Hiding()(batch, generator()) is batch


def test_units_are_hidden_whole_and_at_the_given_rate(batch, tokenizer):
    hide = Hiding.of(0.0, 0.3, tokenizer)
    assert hide.blank == tokenizer.mask_token_id
    hidden = hide(batch, generator())
    is_special = torch.isin(batch.piece_ids_BL, torch.tensor(tokenizer.all_special_ids))
    assert hidden.piece_ids_BL[is_special].equal(batch.piece_ids_BL[is_special])
    is_hidden = hidden.piece_ids_BL == hide.blank
    shares = []
    for row, (firsts, mask) in enumerate(zip(batch.unit_piece_BU, batch.unit_mask_BU, strict=True)):
        edges = [*firsts[mask].tolist(), int(batch.piece_mask_BL[row].sum()) - 1]
        for start, stop in itertools.pairwise(edges):
            pieces = is_hidden[row, start:stop][~is_special[row, start:stop]]
            if len(pieces):
                assert pieces.all() or not pieces.any()
                shares.append(float(pieces[0]))
    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.03)
    assert hide(batch, generator()).piece_ids_BL.equal(hidden.piece_ids_BL)


def test_gold_and_pictures_stay_when_units_are_hidden(batch, tokenizer):
    hidden = Hiding.of(0.0, 0.5, tokenizer)(batch, generator())
    assert hidden.gold is batch.gold
    assert hidden.window_M is batch.window_M
