"""MAE-model against its equations and by hand; it learns 64 products by heart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.baselines.value_ranker import (
    Query,
    RankerConfig,
    ValueRanker,
    ValueTable,
    fit_ranker,
    pad_pieces,
    rank,
)
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.text import TextConfig, TextProcessor

SMALL = RankerConfig(dim=8, piece_dim=6, windows=(2, 3), filters=4)


@pytest.fixture
def table():
    found = ValueTable(2)
    for attribute, value in ((0, "Dark  Red"), (0, "blue"), (1, "cotton"), (0, "dark red")):
        found.add(attribute, value)
    return found


def test_values_are_numbered_once_and_known_by_attribute(table):
    assert table.values == ["dark red", "blue", "cotton"]
    assert table.of_attribute == [[0, 1], [2]]
    generator = torch.Generator().manual_seed(0)
    assert {table.other(0, 1, generator) for _ in range(10)} == {0}
    assert {table.other(1, 2, generator) for _ in range(30)} == {0, 1}


@torch.no_grad()
def test_equals_the_equations_one_query_at_a_time(table):
    torch.manual_seed(0)
    model = ValueRanker(SMALL, 20, table, picture_dim=5).eval()
    pieces = [np.array([3, 4, 5, 6, 7, 8]), np.array([9])]
    queries = [Query(p, np.zeros(5, np.float32), a) for a, p in enumerate(pieces)]
    pictures = torch.randn(2, 5)
    found = model(pad_pieces(queries, 3), torch.tensor([0, 1]), pictures)
    for row, ids in enumerate(pieces):
        padded = torch.tensor([*ids.tolist(), 0, 0])
        embedded = model.pieces.weight[padded]
        parts = []
        for convolution, width in zip(model.convolutions, (2, 3), strict=True):
            highest = torch.zeros(4)
            for start in range(len(ids)):
                for number in range(4):
                    kernel = convolution.weight[number]  # [E, width]
                    value = convolution.bias[number]
                    value = value + (kernel.T * embedded[start : start + width]).sum()
                    highest[number] = max(highest[number], torch.relu(value))
            parts.append(highest)
        joined = torch.cat([*parts, model.attributes.weight[row], pictures[row]])
        inner = torch.relu(model.mix.weight @ joined + model.mix.bias)
        assert_close(found[row], model.out.weight @ inner + model.out.bias)


@torch.no_grad()
def test_the_loss_by_hand(table):
    """max(0, 1 + d(z, v+) - d(z, v-)) with d = 1 - cosine."""
    model = ValueRanker(replace_dim(2), 20, table, picture_dim=0)
    model.values.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    query = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    # first: cosines 1 and -1 -> 1 - 1 - 1 < 0 -> 0; second: 0 and 1 -> 1 - 0 + 1 = 2
    loss = model.loss(query, torch.tensor([0, 0]), torch.tensor([2, 1]))
    assert float(loss) == pytest.approx((0 + 2) / 2)


def replace_dim(dim):
    return SMALL.model_copy(update={"dim": dim})


@torch.no_grad()
def test_ranks_only_values_known_for_the_attribute(table):
    table.of_attribute.append([])
    model = ValueRanker(SMALL, 20, table, picture_dim=0).eval()
    nothing = np.zeros(0, np.float32)
    queries = [Query(np.array([3, 4]), nothing, a) for a in (1, 2, 0)]
    found = rank(model, table, queries)
    assert found[:2] == ["cotton", None]
    assert found[2] in ("dark red", "blue")


@torch.no_grad()
def test_a_longer_neighbour_changes_nothing(table):
    torch.manual_seed(0)
    model = ValueRanker(SMALL, 20, table, picture_dim=0).eval()
    nothing = np.zeros(0, np.float32)
    short, long = (Query(np.arange(3, 3 + n), nothing, 0) for n in (2, 9))
    empty = torch.zeros(2, 0)
    both = model(pad_pieces([short, long], 3), torch.tensor([0, 0]), empty)
    alone = model(pad_pieces([short], 3), torch.tensor([0]), empty[:1])
    assert_close(both[0], alone[0])


def test_learns_64_products_by_heart(demo_products):
    lines = [product.texts["title"] for product in demo_products]
    tokenizer = build_tokenizer(lines, 600)
    text = TextProcessor(tokenizer, TextConfig())
    names = sorted({g.attribute for p in demo_products for g in p.gold})
    table, queries, gold = ValueTable(len(names)), [], {}
    for product in demo_products:
        (window,) = text.encode(product.texts)
        for span in product.gold:
            number = names.index(span.attribute)
            value = table.add(number, span.value)
            queries.append(Query(window.piece_ids, np.zeros(3, np.float32), number, value))
            gold.setdefault((product.product_id, number), set()).add(table.values[value])
    config = RankerConfig(dim=64, piece_dim=32, filters=48, epochs=40, batch_size=32)
    torch.manual_seed(0)
    model = ValueRanker(config, len(tokenizer), table, picture_dim=3)
    losses = list(fit_ranker(model, table, queries))
    assert losses[-1] < 0.5 * losses[0]
    found = rank(model, table, [replace(query, value=-1) for query in queries])
    asked = [(p.product_id, names.index(g.attribute)) for p in demo_products for g in p.gold]
    right = [answer in gold[key] for answer, key in zip(found, asked, strict=True)]
    assert sum(right) / len(right) > 0.9


def test_nothing_to_learn_from_is_a_clear_error(table):
    model = ValueRanker(SMALL, 20, table, picture_dim=0)
    with pytest.raises(ValueError, match="no values to learn from"):
        next(fit_ranker(model, table, []))
