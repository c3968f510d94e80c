"""M-JAVE against its equations, written out for one product at a time, and by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.fit.losses import disagreement
from ulsdram_core.fit.optim import OptimConfig
from ulsdram_core.heatmap import region_weights
from ulsdram_core.method.model import ModelOutput
from ulsdram_core.pairs import Pairs

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
JAVE = {"head": "linear", "reader": {"kind": "jave", "dim": 8}}


def no_pairs(logits):
    raise AssertionError(f"a model without a policy chooses no pairs, {logits.shape}")


@pytest.fixture
def m_jave(parts_of):
    encoder = {"architecture": "tiny", "width": 8}
    model = {**JAVE, "image_encoder": encoder}
    return parts_of("none", "none", "softmax", model=model, image={"size": 32})


@pytest.fixture
def jave(parts_of):
    return parts_of("none", "none", "softmax", model=JAVE)


def attend(query, key, value):
    """(Q K' / sqrt D) V, one query at a time, without softmax."""
    rows = []
    for q in query:
        row = torch.zeros(value.shape[1])
        for k, v in zip(key, value, strict=True):
            row = row + (q @ k) / math.sqrt(len(q)) * v
        rows.append(row)
    return torch.stack(rows)


def expected(parts, reference, example):
    """Logits [C] and tag scores [U, T] of one product, from the published equations."""
    model = parts.model
    reader, tagger = model.reader, model.tagger
    ids, types = example.window.piece_ids, example.window.piece_types
    x, _ = reference.run_layers(
        model, reference.embed(model, torch.from_numpy(ids), torch.from_numpy(types))
    )
    w_q, w_k, w_v = reader.text_qkv.weight.chunk(3)
    h = attend(x @ w_q.T, x @ w_k.T, x @ w_v.T)
    seen = []
    if model.image_encoder is not None:
        for picture in example.pictures:
            pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
            seen.append(model.image_encoder(pixels)[0])
    for v in seen:
        pooled = v.mean(0)
        query = x @ reader.region_query.weight.T
        cross = attend(query, v @ reader.region_key.weight.T, v @ reader.region_value.weight.T)
        for place in range(len(x)):
            gate = torch.sigmoid(
                reader.gate_text.weight[0] @ x[place]
                + reader.gate_text.bias[0]
                + reader.gate_picture.weight[0] @ pooled
            )
            h[place] = h[place] + gate * cross[place] / len(seen)
    total = (
        reference.linear(x.sum(0), reader.sentence_text)
        + reference.linear(h.sum(0), reader.sentence_mixed)
        + reference.linear(x[0], reader.sentence_own)
    )
    logits = reference.linear(total, model.head.score)
    p = torch.sigmoid(logits)
    features = (
        reference.linear(x, reader.tag_text)
        + reference.linear(h, reader.tag_mixed)
        + reference.linear(p, reader.tag_range)
    )
    for v in seen:
        r = torch.stack(
            [
                torch.sigmoid(
                    reader.gate_range.weight[0] @ p
                    + reader.gate_region.weight[0] @ region
                    + reader.gate_region.bias[0]
                )
                for region in v
            ]
        )
        values = (v @ reader.region_value.weight.T) * r[:, None]
        query = x @ reader.region_query.weight.T
        features = features + attend(query, v @ reader.region_key.weight.T, values) / len(seen)
    units = features[torch.from_numpy(example.window.unit_piece)]
    return logits, reference.linear(units, tagger.score)


@pytest.mark.parametrize("name", ["m_jave", "jave"])
@torch.no_grad()
def test_equals_the_published_equations(request, name, examples_of, collated, products, reference):
    parts = request.getfixturevalue(name)
    examples = examples_of(parts, products[2:6])
    assert {len(example.pictures) for example in examples} == (
        {0, 1, 2, 3} if "m_" in name else {0}
    )
    output = parts.model(collated(examples), no_pairs)
    for row, example in enumerate(examples):
        logits, scores = expected(parts, reference, example)
        assert_close(output.logits_BC[row], logits, **CLOSE)
        assert_close(output.emissions_NUT[row, : len(scores)], scores, **CLOSE)


@torch.no_grad()
def test_regions_given_instead_of_pixels_give_the_same(m_jave, examples_of, collated, products):
    examples = examples_of(m_jave, products[2:6])
    encoder = m_jave.model.image_encoder
    given = [
        replace(
            example,
            pictures=tuple(
                encoder(torch.from_numpy(p).permute(2, 0, 1)[None])[0].numpy()
                for p in example.pictures
            ),
        )
        for example in examples
    ]
    one, other = (m_jave.model(collated(rows), no_pairs) for rows in (examples, given))
    assert_close(one.emissions_NUT, other.emissions_NUT, **CLOSE)


@torch.no_grad()
def test_heatmaps_show_the_gated_scores(m_jave, examples_of, collated, products):
    batch = collated(examples_of(m_jave, products[3:4]))
    height, width = m_jave.model.image_encoder.grid(32)
    weights = region_weights(m_jave.model, batch)
    assert weights.shape == (3, batch.piece_ids_BL.shape[1], height * width)


def test_fixed_encoders_are_not_trained_but_a_bilstm_is(parts_of):
    fixed = parts_of("none", "none", "softmax", model={**JAVE, "unified": False})
    assert not any(p.requires_grad for p in fixed.model.text_encoder.parameters())
    words = {"text_encoder": {"name": "bilstm", "hidden": 16, "layers": 1}, "unified": False}
    recurrent = parts_of("none", "none", "softmax", model={**JAVE, **words})
    assert all(p.requires_grad for p in recurrent.model.text_encoder.parameters())
    optimizer, _ = OptimConfig().build(fixed.model, 10)
    assert optimizer.param_groups


def test_disagreement_by_hand():
    """One window, two units, one attribute: p log(p / q), q the mean of the highest B and I."""
    probs = torch.tensor([[[0.2, 0.7, 0.1], [0.4, 0.2, 0.4], [0.0001, 0.0001, 0.9998]]])
    mask = torch.tensor([[True, True, False]])
    logits = torch.tensor([[0.0]])
    found = disagreement(ModelOutput(logits, None, probs.log(), mask))
    assert float(found) == pytest.approx(0.5 * math.log(0.5 / ((0.7 + 0.4) / 2)), abs=1e-6)


def test_disagreement_needs_a_head_and_no_policy():
    scores, mask = torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)
    nothing = torch.zeros(0, dtype=torch.long)
    for output in (
        ModelOutput(None, None, scores, mask),
        ModelOutput(torch.zeros(1, 1), Pairs(nothing, nothing), scores, mask),
    ):
        with pytest.raises(ValueError, match="set it to 0"):
            disagreement(output)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({**JAVE, "head": "none"}, "its tags read the attribute scores"),
        ({**JAVE, "head": "released"}, "gives the head one vector"),
        ({**JAVE, "policy": {"kind": "prototype"}}, "expected a head and no policy"),
    ],
)
def test_parts_that_do_not_fit_are_refused(config_of, model, message):
    with pytest.raises(ValueError, match=message):
        config_of("none", "none", "softmax", model=model)
