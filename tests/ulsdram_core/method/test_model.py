"""The assembled model against its reference, against itself in other batches, and its gradients."""

from dataclasses import replace
from itertools import product as combinations

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ulsdram_core.batch import Example
from ulsdram_core.method import model as model_module
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.pairs import Pairs, predicted_pairs
from ulsdram_core.text import Window

FUSIONS = ("none", "concat", "self_attention", "tir", "gated")
POLICIES = ("none", "prototype", "dynet", "bert")
TAGGERS = ("softmax", "crf", "bilstm_crf")
KINDS = list(combinations(FUSIONS, POLICIES, TAGGERS))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def every_pair(logits_BC):
    return Pairs(*torch.ones_like(logits_BC).nonzero(as_tuple=True))


def names_of(parts):
    words = [name.replace("_", " ") for name in parts.labels.attributes]
    return parts.tokenizer(words)["input_ids"]


def regions_of(model, example):
    """Each picture through the image encoder alone."""
    return [
        model.image_encoder(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
        for picture in example.pictures
    ]


def rows_of(output, window):
    """Tag scores of one window of a batch, by attribute (None: no policy)."""
    if output.pairs is None:
        rows = {None: window}
    else:
        mine = (output.pairs.window_N == window).nonzero()[:, 0].tolist()
        rows = {int(output.pairs.attribute_N[row]): row for row in mine}
    return {a: output.emissions_NUT[row][output.mask_NU[row]] for a, row in rows.items()}


def assert_same_rows(found, wanted):
    assert found.keys() == wanted.keys()
    for attribute, scores in wanted.items():
        assert_close(found[attribute], scores, **CLOSE)


@pytest.mark.parametrize(("fusion", "policy", "tagger"), KINDS)
@torch.no_grad()
def test_equals_the_reference(
    parts_of, examples_of, collated, products, reference, fusion, policy, tagger
):
    # the heads take turns; test_attribute_head.py covers them all
    head = "paper" if (len(fusion) + len(tagger)) % 2 else "released"
    parts = parts_of(fusion, policy, tagger, model={"head": head})
    model, examples = parts.model, examples_of(parts, products[2:5])
    output = model(collated(examples), every_pair)
    num_rows = 0
    for place, example in enumerate(examples):
        logits, wanted = reference.tag(
            model, example.window, regions_of(model, example), threshold=0.0, names=names_of(parts)
        )
        assert_close(output.logits_BC[place], logits, **CLOSE)
        found = rows_of(output, place)
        assert_same_rows(found, wanted)
        for scores in found.values():
            mask = torch.ones(1, len(scores), dtype=torch.bool)
            best = reference.best_tags(model, scores)
            assert model.tagger.decode(scores[None], mask)[0].tolist() == best
            nll = model.tagger.nll(scores[None], torch.tensor([best]), mask)
            assert_close(-nll.sum(), reference.log_likelihood(model, scores, best).sum(), **CLOSE)
        num_rows += len(found)
    assert num_rows >= 3


@pytest.mark.parametrize(("fusion", "policy", "tagger"), KINDS)
@torch.no_grad()
def test_output_does_not_depend_on_the_batch(
    parts_of, examples_of, collated, products, fusion, policy, tagger
):
    parts = parts_of(fusion, policy, tagger)
    model, examples = parts.model, examples_of(parts, products)
    together = model(collated(examples), every_pair)
    for place in (0, 3, 4):
        example = examples[place]
        # a copy of every picture, beside a longer product that shows one of them too
        twin = replace(examples[4], pictures=example.pictures[:1] + examples[4].pictures)
        for batch in ([example], [twin, example, examples[0]], [example, example]):
            output = model(collated(batch), every_pair)
            here = next(i for i, other in enumerate(batch) if other is example)
            assert_close(output.logits_BC[here], together.logits_BC[place], **CLOSE)
            assert_same_rows(rows_of(output, here), rows_of(together, place))


@pytest.mark.parametrize("fusion", FUSIONS[1:])
@torch.no_grad()
def test_pictures_reach_the_output(parts_of, examples_of, collated, products, fusion):
    parts = parts_of(fusion)
    example = examples_of(parts, products[3:4])[0]
    without = replace(example, pictures=())
    fewer = replace(example, pictures=example.pictures[:1])
    output = parts.model(collated([example, fewer, without]), every_pair)
    for one, other in ((0, 1), (1, 2)):
        assert (output.logits_BC[one] - output.logits_BC[other]).abs().max() > 1e-3


@pytest.mark.parametrize("fusion", ["tir", "gated"])
@torch.no_grad()
def test_repeating_a_picture_changes_nothing(parts_of, examples_of, collated, products, fusion):
    """The mean, unlike the sum, does not grow with the count."""
    parts = parts_of(fusion)
    example = examples_of(parts, products[5:6])[0]
    thrice = replace(example, pictures=tuple(p.copy() for p in example.pictures * 3))
    output = parts.model(collated([example, thrice]), every_pair)
    assert_close(output.logits_BC[0], output.logits_BC[1], **CLOSE)


def test_a_shared_picture_is_encoded_once(parts_of, examples_of, collated, products):
    parts = parts_of("tir")
    example = examples_of(parts, products[3:4])[0]
    batch = collated([example, example])
    assert len(batch.pictures_K3SS) == len(example.pictures)
    assert len(batch.picture_M) == 2 * len(example.pictures)


@torch.no_grad()
def test_many_pictures_are_encoded_some_at_a_time(
    parts_of, examples_of, collated, products, monkeypatch
):
    parts = parts_of("tir")
    batch = collated(examples_of(parts, products))
    whole = parts.model.see(batch).regions_MRV
    seen = []
    parts.model.image_encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    monkeypatch.setattr(model_module, "MAX_PICTURES", 4)
    assert_close(parts.model.see(batch).regions_MRV, whole, **CLOSE)
    assert seen == [4, 4, 4, 4, 2]


class Louder(nn.Module):
    """An image encoder whose regions are a hundred times as large."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, pictures):
        return 100 * self.encoder(pictures)


@pytest.mark.parametrize("fusion", FUSIONS[1:])
@torch.no_grad()
def test_normalised_regions_do_not_depend_on_their_scale(
    parts_of, examples_of, collated, products, fusion
):
    config = {"kind": fusion, "heads": 2, "dim": 8, "normalize_regions": True}
    model = parts_of(fusion, model={"fusion": config}).model
    batch = collated(examples_of(parts_of(fusion), products[:4]))
    logits = model(batch, every_pair).logits_BC
    model.image_encoder = Louder(model.image_encoder)
    assert_close(model(batch, every_pair).logits_BC, logits, rtol=1e-3, atol=1e-3)


class Scrambled(nn.Module):
    """An image encoder whose regions are laid out as in the released code."""

    def __init__(self, encoder, scramble):
        super().__init__()
        self.encoder, self.scramble = encoder, scramble

    def forward(self, pictures):
        return torch.stack([self.scramble(regions) for regions in self.encoder(pictures)])


def as_released(window: Window, length: int) -> Window:
    """Every piece a unit, and padding that counts as text."""
    padding = length - len(window.piece_ids)
    ids = np.pad(window.piece_ids, (0, padding))
    return replace(
        window,
        piece_ids=ids,
        piece_types=np.pad(window.piece_types, (0, padding)),
        unit_piece=np.arange(length),
        unit_source=np.zeros(length, np.int16),
    )


@torch.no_grad()
def test_equals_the_released_conventions_when_fed_them(
    parts_of, examples_of, collated, products, reference
):
    """No mask anywhere, scrambled regions, the head over two layers, one picture."""
    parts = parts_of("tir", "prototype", "bilstm_crf", model={"head": "released"})
    model = parts.model
    plain = [replace(e, pictures=e.pictures[:1]) for e in examples_of(parts, products[1:4])]
    length = max(len(e.window.piece_ids) for e in plain)
    padded = [Example(as_released(e.window, length), e.pictures) for e in plain]
    batch = collated(padded)
    assert bool(batch.piece_mask_BL.all())
    assert bool(batch.unit_mask_BU.all())
    ours = model(collated(plain), every_pair)
    encoder = model.image_encoder
    model.image_encoder = Scrambled(encoder, reference.scramble)
    output = model(batch, every_pair)
    model.image_encoder = encoder
    for place, example in enumerate(padded):
        regions = [reference.scramble(r) for r in regions_of(model, example)]
        logits, wanted = reference.tag(model, example.window, regions, threshold=0.0, names=[])
        assert_close(output.logits_BC[place], logits, **CLOSE)
        assert_same_rows(rows_of(output, place), wanted)
    assert (ours.logits_BC - output.logits_BC).abs().max() > 1e-2, "the conventions matter"


@pytest.mark.parametrize("policy", POLICIES)
@torch.no_grad()
def test_an_empty_range_gives_no_rows(parts_of, examples_of, collated, products, policy):
    parts = parts_of("tir", policy)
    batch = collated(examples_of(parts, products[:2]))
    output = parts.model(batch, lambda logits: predicted_pairs(logits, 1.0, most=64))
    assert len(output.emissions_NUT) == (2 if policy == "none" else 0)
    assert output.emissions_NUT.shape[1] == batch.unit_mask_BU.shape[1]


def gradient_norms(model, batch):
    model.train()
    output = model(batch, every_pair)
    (output.emissions_NUT.square().sum() + output.logits_BC.square().sum()).backward()
    return {
        name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None
    }


def part_of(name):
    return name.partition(".")[0]


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_unified_training_reaches_both_encoders(parts_of, examples_of, collated, products, fusion):
    parts = parts_of(fusion)
    norms = gradient_norms(parts.model, collated(examples_of(parts, products)))
    reached = {part_of(name) for name, norm in norms.items() if norm > 0}
    assert reached >= {"text_encoder", "image_encoder", "fusion", "head", "policy", "tagger"}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fixed_training_reaches_neither_encoder(parts_of, examples_of, collated, products, fusion):
    parts = parts_of(fusion, model={"unified": False})
    model = parts.model
    norms = gradient_norms(model, collated(examples_of(parts, products)))
    assert [n for n in norms if part_of(n) in ("text_encoder", "image_encoder")] == []
    assert model.training
    assert model.tagger.training
    encoders = [model.text_encoder, *([model.image_encoder] if model.image_encoder else [])]
    assert not any(m.training for encoder in encoders for m in encoder.modules())
    if fusion not in ("none", "gated"):
        assert norms["fusion." + ("out" if fusion == "tir" else "project") + ".weight"] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": {"kind": "prototype"}, "head": "none"}, "needs the range"),
        ({"fusion": {"kind": "tir"}, "image_encoder": None}, "expected both or neither"),
        ({"fusion": {"kind": "none"}, "image_encoder": {"architecture": "tiny"}}, "both or"),
        ({"fusion": {"kind": "tri"}}, "fusion.kind"),
        ({"tagger": {"kind": "crf", "size": 3}}, "tagger.size"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        ModelConfig.model_validate(changes)


@pytest.mark.slow
def test_picture_size_reaches_a_vision_transformer(parts_of, examples_of, collated, products):
    image_encoder = {"architecture": "vit_b_32"}
    parts = parts_of("tir", model={"image_encoder": image_encoder}, image={"size": 64})
    examples = examples_of(parts, products[1:2])
    output = parts.model.eval()(collated(examples), every_pair)
    assert output.logits_BC.isfinite().all()


@pytest.mark.parametrize(
    ("fusion", "policy", "tagger"),
    [
        *((fusion, "prototype", "bilstm_crf") for fusion in FUSIONS),
        *(("tir", policy, tagger) for policy in POLICIES[2:] for tagger in TAGGERS),
        *(("concat", "none", tagger) for tagger in TAGGERS),
    ],
)
def test_bf16_is_near_fp32_forward_and_backward(
    parts_of, examples_of, collated, products, fusion, policy, tagger
):
    parts = parts_of(fusion, policy, tagger)
    batch = collated(examples_of(parts, products[:5]))
    with torch.no_grad():
        exact = parts.model(batch, every_pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = parts.model(batch, every_pair)
    assert rough.emissions_NUT.dtype == rough.logits_BC.dtype == torch.float32
    assert_close(rough.logits_BC, exact.logits_BC, rtol=0.1, atol=0.1)
    spread = exact.emissions_NUT[exact.mask_NU].std()
    error = (rough.emissions_NUT - exact.emissions_NUT)[exact.mask_NU].abs().mean()
    assert error < 0.05 * spread
    rough.emissions_NUT.square().sum().backward()
    gradients = [p.grad for p in parts.model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients)
