"""Examples to padded tensors, gold included."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ulsdram_core.batch import collate, length_batches
from ulsdram_core.labels import AlignedSpan


@pytest.fixture
def examples(parts_of, examples_of, products):
    return examples_of(parts_of("tir"), products)


def test_padding_reaches_to_the_longest_only(examples, collated):
    batch = collated(examples[:3])
    lengths = [len(e.window.piece_ids) for e in examples[:3]]
    assert batch.piece_ids_BL.shape == (3, max(lengths))
    assert batch.piece_mask_BL.sum(1).tolist() == lengths
    assert batch.unit_mask_BU.sum(1).tolist() == [e.window.num_units for e in examples[:3]]
    assert batch.piece_ids_BL[~batch.piece_mask_BL].eq(0).all()


def test_links_name_each_windows_pictures(examples, collated):
    batch = collated(examples[:4])
    counts = torch.bincount(batch.window_M, minlength=4).tolist()
    assert counts == [len(e.pictures) for e in examples[:4]] == [0, 1, 2, 3]
    shown = batch.pictures_K3SS[batch.picture_M[batch.window_M == 3]]
    wanted = np.stack(examples[3].pictures).transpose(0, 3, 1, 2)
    assert np.array_equal(shown.numpy(), wanted)


def test_no_pictures_at_all(examples):
    batch = collate(examples[:1], picture_size=32)
    assert batch.pictures_K3SS.shape == (0, 3, 32, 32)
    assert len(batch.picture_M) == len(batch.window_M) == 0


def test_gold_rows_are_padded_with_o(examples, collated):
    batch = collated(examples[:3])
    assert batch.gold is not None
    assert batch.gold.tags_GU.shape == (5, batch.unit_mask_BU.shape[1])
    assert batch.gold.window_G.tolist() == [0, 0, 1, 1, 2]
    assert batch.gold.attribute_G.tolist() == [0, 1, 0, 1, 0]
    assert batch.gold.tags_GU[0].tolist()[:4] == [0, 1, 0, 0]
    assert batch.class_tags_BU is not None
    assert batch.class_tags_BU[0].tolist()[:4] == [0, 1, 3, 0]


def test_gold_needs_every_example_to_carry_it(examples, collated):
    batch = collated([examples[0], replace(examples[1], gold=None)])
    assert batch.gold is None
    assert batch.class_tags_BU is None


def test_a_product_without_values_has_gold_of_no_rows(examples, collated):
    batch = collated([replace(examples[0], gold=())])
    assert batch.gold is not None
    assert len(batch.gold.window_G) == 0
    assert batch.gold.tags_GU.shape == (0, batch.unit_mask_BU.shape[1])


def test_spans_of_other_windows_make_no_row(examples, collated):
    far = AlignedSpan(2, 500, 502)
    batch = collated([replace(examples[0], gold=(*examples[0].gold, far))])
    assert 2 not in batch.gold.attribute_G.tolist()


def test_hidden_pictures_are_unlinked(examples, collated):
    batch = collated(examples[:4])
    drop = batch.window_M == 3
    hidden = batch.without_pictures(drop)
    assert hidden.window_M.tolist() == [1, 2, 2]
    assert len(hidden.pictures_K3SS) == len(batch.pictures_K3SS)


def test_to_moves_everything(examples, collated):
    moved = collated(examples[:2]).to("meta")
    assert moved.piece_ids_BL.is_meta
    assert moved.gold.tags_GU.is_meta


def test_length_batches_hold_each_row_once_within_the_limits():
    lengths = [3, 128, 7, 7, 64, 1, 90, 128, 5, 300]
    groups = length_batches(lengths, max_pieces=256, max_rows=3)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[i] for i in group)
        assert len(group) == 1 or padded <= 256
        assert len(group) <= 3
    assert groups[0] == [9], "the longest first, even beyond the limit"
    assert length_batches([], max_pieces=1, max_rows=1) == []
