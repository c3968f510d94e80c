"""SUOpenTag's guidance against its equation; attributes that are given; new ones asked for."""

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.encoders.recurrent_encoder import final_states
from ulsdram_core.errors import LabelError
from ulsdram_core.extractor import Extractor
from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.method.range_policy import SuOpenTagPolicy
from ulsdram_core.pairs import Pairs, RangeConfig, training_pairs
from ulsdram_core.parts import asked_for

SUOPENTAG = {"reader": {"kind": "bilstm"}, "head": "none"}


@pytest.fixture
def parts(parts_of):
    limits = RangeConfig(wrong="random", max_wrong=2)
    return parts_of("none", "suopentag", "crf", model=SUOPENTAG, range=limits)


def listed(window, attribute):
    return zip(window.tolist(), attribute.tolist(), strict=True)


@torch.no_grad()
def test_guides_by_the_cosine_times_the_attributes_vector():
    torch.manual_seed(0)
    policy = SuOpenTagPolicy(4)
    features, names = torch.randn(2, 3, 4), torch.randn(2, 4)
    pairs = (torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1]))
    weight, bias = torch.randn(5, 8), torch.randn(5)
    found = policy(features, *pairs, names).projection(weight, bias).dense()
    for row, (window, attribute) in enumerate(zip(*pairs, strict=True)):
        a = names[attribute]
        for unit, h in enumerate(features[window]):
            cosine = h @ a / (h.norm() * a.norm())
            assert_close(found[row, unit], weight @ torch.cat([h, cosine * a]) + bias)
    part = policy(features, *pairs, names).rows(slice(1, 3))
    assert_close(part.projection(weight, bias).dense(), found[1:])


@torch.no_grad()
def test_an_attributes_vector_is_the_last_state_over_its_name(parts):
    model = parts.model
    ids = torch.tensor(parts.tokenizer("sleeve length")["input_ids"])[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    encoder = model.text_encoder
    encoded, _ = encoder(encoder.embed(ids, torch.zeros_like(ids)), mask)
    wanted = final_states(model.policy.name_lstm(encoded, mask), mask)
    place = parts.labels.index("sleeve_length")
    assert_close(model._name_vectors(torch.tensor([0, place]))[1:], wanted, rtol=1e-4, atol=1e-5)


def test_every_attribute_is_given(parts, products):
    extractor = Extractor(parts, device="cpu", precision="fp32")
    assert extractor.model.head is None
    chosen = []
    tagged = extractor.model._tag

    def watch(encoded, pairs):
        chosen.append(pairs)
        return tagged(encoded, pairs)

    extractor.model._tag = watch
    found = extractor.extract(products[:2])
    assert len(chosen[0]) == 2 * len(parts.labels)
    assert all(not extraction.range for extraction in found)


def test_training_adds_random_absent_attributes(parts, examples_of, collated, products):
    batch = collated(examples_of(parts, products[:4]))
    logits = torch.full((4, len(parts.labels)), float("inf"))
    drawn = set()
    for seed in range(20):
        torch.manual_seed(seed)
        pairs, tags = training_pairs(logits, batch.gold, parts.config.range)
        num_gold = len(batch.gold.window_G)
        assert len(pairs) == num_gold + 2 * 4
        assert not tags[num_gold:].any()
        wrong = list(listed(pairs.window_N[num_gold:], pairs.attribute_N[num_gold:]))
        gold = set(listed(batch.gold.window_G, batch.gold.attribute_G))
        assert not gold & set(wrong)
        assert len(set(wrong)) == len(wrong)
        drawn |= set(wrong)
    assert len(drawn) > 2 * 4, "not always the same ones"
    loss = ExtractionLoss(LossConfig(), parts.config.range)(parts.model, batch)
    loss.total.backward()
    assert parts.model.policy.name_lstm.lstm.weight_input.grad.abs().sum() > 0


@pytest.mark.parametrize("policy", ["bert", "suopentag"])
@torch.no_grad()
def test_new_attributes_are_tagged_as_if_they_had_been_known(
    parts_of, examples_of, collated, products, policy
):
    parts = parts_of("none", policy, "crf")
    asked = asked_for(parts, ("heel", "color"))
    assert asked.labels.attributes == ("heel", "color")
    batch = collated(examples_of(parts, products[:1]))

    def all_of(logits):
        return Pairs(*torch.ones_like(logits).nonzero(as_tuple=True))

    known, new = parts.model(batch, all_of), asked.model(batch, all_of)
    for place, name in enumerate(asked.labels.attributes):
        row = parts.labels.index(name)
        assert_close(new.emissions_NUT[place], known.emissions_NUT[row], rtol=1e-4, atol=1e-5)
    found = Extractor(asked, device="cpu", precision="fp32").extract(products[:3])
    assert {v.attribute for e in found for v in e.values} <= {"heel", "color"}


def test_a_policy_of_numbers_cannot_be_asked(parts_of):
    with pytest.raises(LabelError, match="know their attributes by number"):
        asked_for(parts_of("none", "prototype"), ("brand new",))
