"""The CRF against enumeration of every tag sequence, and against pytorch-crf."""

import itertools

import pytest
import torch
import torchcrf
from hypothesis import given, settings
from hypothesis import strategies as st

from ulsdram_core.method.crf import CRF, TagSpans


def make_case(num_tags=3, length=5, batch=4, *, scale=1.0, dtype=torch.float32, seed=0):
    """A CRF, its pytorch-crf twin, [B, S, T] emissions, tags and a right-padded mask."""
    generator = torch.Generator().manual_seed(seed)
    crf = CRF(num_tags, batch_first=True).to(dtype)
    for parameter in crf.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator).to(dtype)
    twin = torchcrf.CRF(num_tags, batch_first=True).to(dtype)
    twin.load_state_dict(crf.state_dict())
    emissions = scale * torch.randn(batch, length, num_tags, generator=generator).to(dtype)
    tags = torch.randint(num_tags, (batch, length), generator=generator)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[0] = length
    return crf, twin, emissions, tags, torch.arange(length) < lengths.unsqueeze(1)


def path_scores(crf, emissions):
    """{tags: score} of every sequence for one sample's [S, T] emissions."""
    scores = {}
    for path in itertools.product(range(crf.num_tags), repeat=len(emissions)):
        score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
        score = score + sum(emissions[i, tag] for i, tag in enumerate(path))
        score = score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
        scores[path] = score.item()
    return scores


def path_probabilities(crf, emissions):
    scores = path_scores(crf, emissions)
    weights = torch.tensor(list(scores.values()), dtype=torch.float64).softmax(0)
    return dict(zip(scores, weights.tolist(), strict=True))


def all_spans(mask, begin_tag=1, inside_tag=2):
    rows = [
        (sequence, start, end, begin_tag, inside_tag)
        for sequence, length in enumerate(mask.sum(1).tolist())
        for start in range(length)
        for end in range(start + 1, length + 1)
    ]
    return TagSpans(*torch.tensor(rows).T)


def is_exactly(path, start, end, begin_tag, inside_tag):
    return (
        path[start] == begin_tag
        and all(tag == inside_tag for tag in path[start + 1 : end])
        and (end == len(path) or path[end] != inside_tag)
    )


def gradients(crf, emissions, tags, mask, weigh):
    emissions = emissions.clone().requires_grad_()
    crf.zero_grad()
    weigh(crf, emissions, tags, mask).backward()
    found = [emissions.grad, *(parameter.grad for parameter in crf.parameters())]
    # pytorch-crf leaves the transitions of one-position batches out of the graph.
    return [torch.zeros(1) if gradient is None else gradient for gradient in found]


def assert_same_gradients(crf, twin, emissions, tags, mask, weigh, **tolerance):
    ours = gradients(crf, emissions, tags, mask, weigh)
    theirs = gradients(twin, emissions, tags, mask, weigh)
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == their.dtype
        torch.testing.assert_close(our, their, **tolerance)


@pytest.mark.parametrize("num_tags", [1, 2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_equals_enumeration(num_tags, scale):
    crf, _, emissions, tags, mask = make_case(num_tags, scale=scale, dtype=torch.float64)
    llh = crf(emissions, tags, mask, reduction="none")
    decoded = crf.decode(emissions, mask)
    for sample, length in enumerate(mask.sum(1).tolist()):
        probabilities = path_probabilities(crf, emissions[sample, :length])
        path = tuple(tags[sample, :length].tolist())
        assert llh[sample].exp().item() == pytest.approx(probabilities[path], rel=1e-9)
        assert decoded[sample] == list(max(probabilities, key=probabilities.get))


@pytest.mark.parametrize(("num_tags", "begin_tag", "inside_tag"), [(3, 1, 2), (5, 3, 4), (5, 1, 2)])
def test_span_probabilities_equal_enumeration(num_tags, begin_tag, inside_tag):
    crf, _, emissions, _, mask = make_case(num_tags, dtype=torch.float64)
    spans = all_spans(mask, begin_tag, inside_tag)
    probability = crf.span_log_prob(emissions, spans, mask).exp()
    paths = [
        path_probabilities(crf, row[:length])
        for row, length in zip(emissions, mask.sum(1).tolist(), strict=True)
    ]
    for row, found in zip(
        zip(*(getattr(spans, name).tolist() for name in spans.__slots__), strict=True),
        probability.tolist(),
        strict=True,
    ):
        sequence, *span = row
        expected = sum(p for path, p in paths[sequence].items() if is_exactly(path, *span))
        assert found == pytest.approx(expected, rel=1e-9)


def test_spans_of_several_attributes_at_once_and_none():
    crf, _, emissions, _, mask = make_case(7, length=6)
    many = [all_spans(mask, 1 + 2 * a, 2 + 2 * a) for a in range(3)]
    joined = TagSpans(*(torch.cat([getattr(s, f) for s in many]) for f in many[0].__slots__))
    alone = torch.cat([crf.span_log_prob(emissions, spans, mask) for spans in many])
    torch.testing.assert_close(crf.span_log_prob(emissions, joined, mask), alone)
    none = TagSpans(*torch.empty(5, 0, dtype=torch.int64))
    assert crf.span_log_prob(emissions, none, mask).shape == (0,)


def test_span_probability_is_negligible_but_finite_where_emissions_forbid_it():
    crf, _, emissions, _, _ = make_case(length=4, batch=1, dtype=torch.float64)
    emissions[0, 2, 2] = -torch.inf
    spans = TagSpans(*torch.tensor([[0, 0], [1, 1], [4, 2], [1, 1], [2, 2]]))
    log_prob = crf.span_log_prob(emissions, spans)
    assert log_prob[0] < -1e4
    assert not log_prob.isnan().any()
    probabilities = path_probabilities(crf, emissions[0])
    expected = sum(p for path, p in probabilities.items() if is_exactly(path, 1, 2, 1, 2))
    assert log_prob[1].exp().item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "row", [(0, 2, 2, 1, 2), (0, 0, 6, 1, 2), (4, 0, 1, 1, 2), (0, 0, 1, 1, 3)]
)
def test_spans_outside_are_refused(row):
    crf, _, emissions, _, mask = make_case()
    with pytest.raises(ValueError, match="found 1 of 1 spans outside"):
        crf.span_log_prob(emissions, TagSpans(*torch.tensor([row]).T), mask)


@pytest.mark.parametrize("num_tags", [1, 3, 5, 21])
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "token_mean"])
def test_likelihood_and_gradients_equal_pytorch_crf(num_tags, with_mask, reduction):
    case = make_case(num_tags, length=17, batch=9, dtype=torch.float64)
    crf, twin, emissions, tags, mask = case
    mask = mask if with_mask else None
    ours = crf(emissions, tags, mask, reduction)
    torch.testing.assert_close(ours, twin(emissions, tags, mask, reduction))
    weights = torch.linspace(-1, 2, 9, dtype=torch.float64) if reduction == "none" else 3.0

    def weigh(model, *inputs):
        return (model(*inputs, reduction) * weights).sum()

    assert_same_gradients(crf, twin, emissions, tags, mask, weigh)


def test_gradients_equal_finite_differences():
    crf, _, emissions, tags, mask = make_case(dtype=torch.float64)
    emissions.requires_grad_()

    def llh(emissions, *parameters):
        named = dict(zip(dict(crf.named_parameters()), parameters, strict=True))
        inputs = (emissions, tags, mask, "none")
        return torch.func.functional_call(crf, named, inputs)

    assert torch.autograd.gradcheck(llh, (emissions, *crf.parameters()))


@settings(max_examples=40, deadline=None)
@given(
    num_tags=st.integers(1, 9),
    length=st.integers(1, 20),
    batch=st.integers(1, 7),
    scale=st.sampled_from([0.1, 1.0, 20.0]),
    seed=st.integers(0, 2**31),
)
def test_agrees_with_pytorch_crf_on_any_case(num_tags, length, batch, scale, seed):
    crf, twin, emissions, tags, mask = make_case(num_tags, length, batch, scale=scale, seed=seed)
    assert crf.decode(emissions, mask) == twin.decode(emissions, mask)
    ours = crf(emissions, tags, mask, "none").double()
    theirs = twin.double()(emissions.double(), tags, mask, "none")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.integers(0, 2), min_size=30, max_size=30), seed=st.integers(0, 99))
def test_ties_fall_like_pytorch_crf(values, seed):
    crf, twin, _, _, mask = make_case(length=10, batch=1, seed=seed)
    for parameter in (*crf.parameters(), *twin.parameters()):
        parameter.data.round_()
    emissions = torch.tensor(values).reshape(1, 10, 3).float()
    assert crf.decode(emissions, mask) == twin.decode(emissions, mask)


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.uint8, torch.int64])
def test_positions_first_and_any_mask_dtype(mask_dtype):
    crf, _, emissions, tags, mask = make_case()
    turned = CRF(3)
    turned.load_state_dict(crf.state_dict())
    given_mask = mask.T.to(mask_dtype)
    turned_emissions = emissions.transpose(0, 1)
    torch.testing.assert_close(
        turned(turned_emissions, tags.T, given_mask), crf(emissions, tags, mask)
    )
    assert turned.decode(turned_emissions, given_mask) == crf.decode(emissions, mask)
    assert torch.equal(turned.viterbi(turned_emissions, given_mask), crf.viterbi(emissions, mask))
    spans = all_spans(mask)
    torch.testing.assert_close(
        turned.span_log_prob(turned_emissions, spans, given_mask),
        crf.span_log_prob(emissions, spans, mask),
    )


def test_viterbi_is_decode_as_a_tensor():
    crf, _, emissions, _, mask = make_case(length=12, batch=6)
    tags = crf.viterbi(emissions, mask)
    assert tags.dtype == torch.int64
    assert not tags[~mask].any()
    assert [row[keep].tolist() for row, keep in zip(tags, mask, strict=True)] == crf.decode(
        emissions, mask
    )
    assert crf.viterbi(emissions).tolist() == crf.decode(emissions)


def test_viterbi_in_chunks_is_the_same(monkeypatch):
    crf, _, emissions, _, mask = make_case(length=9, batch=7)
    whole = crf.viterbi(emissions, mask)
    monkeypatch.setattr("ulsdram_core.method.crf.MAX_CANDIDATES_CPU", 2 * 3 * 3)
    assert torch.equal(crf.viterbi(emissions, mask), whole)
    assert torch.equal(crf.viterbi(emissions)[0], whole[0])


def test_padding_may_hold_anything():
    crf, _, emissions, tags, mask = make_case()
    clean = gradients(crf, emissions, tags, mask, lambda model, *inputs: model(*inputs))
    decoded = crf.decode(emissions, mask)
    dirty_emissions = emissions.masked_fill(~mask.unsqueeze(2), torch.nan)
    dirty_tags = tags.masked_fill(~mask, -100)
    dirty = gradients(crf, dirty_emissions, dirty_tags, mask, lambda model, *inputs: model(*inputs))
    for one, other in zip(clean, dirty, strict=True):
        assert torch.equal(one, other)
    assert crf.decode(dirty_emissions, mask) == decoded


@pytest.mark.parametrize("tag", [-1, 3])
def test_unknown_tags_are_refused(tag):
    crf, _, emissions, tags, mask = make_case()
    tags[0, 1] = tag
    with pytest.raises((IndexError, RuntimeError)):
        crf(emissions, tags, mask)


def test_masks_with_gaps_mean_what_they_mean_in_pytorch_crf():
    crf, twin, emissions, tags, mask = make_case(length=6)
    mask = mask.clone()
    mask[0, 2] = False
    torch.testing.assert_close(
        crf(emissions, tags, mask, "none"), twin(emissions, tags, mask, "none")
    )
    assert crf.decode(emissions, mask) == twin.decode(emissions, mask)
    assert_same_gradients(
        crf, twin, emissions, tags, mask, lambda model, *inputs: model(*inputs, "token_mean")
    )
    with pytest.raises(ValueError, match="mask has gaps"):
        crf.viterbi(emissions, mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_emissions_are_computed_in_float32(dtype):
    crf, _, emissions, tags, mask = make_case()
    half = emissions.to(dtype).requires_grad_()
    llh = crf(half, tags, mask)
    assert llh.dtype == torch.float32
    assert llh.item() == crf(half.detach().float(), tags, mask).item()
    llh.backward()
    assert half.grad.dtype == dtype


def test_autocast_changes_nothing():
    crf, _, emissions, tags, mask = make_case(length=30)
    plain = gradients(crf, emissions, tags, mask, lambda model, *inputs: model(*inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradients(crf, emissions, tags, mask, lambda model, *inputs: model(*inputs))
    for one, other in zip(plain, cast, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("num_tags", [3, 21])
@pytest.mark.parametrize("length", [1, 2, 512])
def test_extreme_scores_stay_exact(num_tags, length):
    crf, twin, emissions, tags, mask = make_case(num_tags, length, 3, seed=1)
    generator = torch.Generator().manual_seed(2)
    for ours, theirs in zip(crf.parameters(), twin.parameters(), strict=True):
        ours.data = 100 * torch.rand(ours.shape, generator=generator) - 50
        theirs.data = ours.data.double()
    emissions = 200 * torch.rand(emissions.shape, generator=generator) - 100
    ours = crf(emissions, tags, mask, "none")
    theirs = twin(emissions.double(), tags, mask, "none")
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-5)
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    found = gradients(crf, emissions, tags, mask, lambda model, *inputs: model(*inputs))
    expected = gradients(
        twin, emissions.double(), tags, mask, lambda model, *inputs: model(*inputs)
    )
    for our, their in zip(found, expected, strict=True):
        torch.testing.assert_close(our.double(), their.double().expand_as(our), **tolerance)
    assert not crf.span_log_prob(emissions, all_spans(mask[:, :9]), mask).isnan().any()


def test_forbidden_transitions_take_the_log_space_path():
    crf, twin, emissions, tags, mask = make_case(dtype=torch.float64)
    for model in (crf, twin):
        model.transitions.data[0, 2] = -1e4
    torch.testing.assert_close(crf(emissions, tags, mask), twin(emissions, tags, mask))
    probabilities = path_probabilities(crf, emissions[0])
    spans = TagSpans(*torch.tensor([[0, 0], [1, 2], [3, 5], [1, 1], [2, 2]]))
    for found, span in zip(
        crf.span_log_prob(emissions, spans, mask), [(1, 3), (2, 5)], strict=True
    ):
        expected = sum(p for path, p in probabilities.items() if is_exactly(path, *span, 1, 2))
        assert found.exp().item() == pytest.approx(expected)


def test_a_tag_that_underflows_does_not_come_back():
    # The tag that loses a position by 1,000 wins the next: the sum must not run dry.
    crf, twin, emissions, tags, mask = make_case(length=40, batch=2, dtype=torch.float64)
    emissions[:, ::2, 0] += 1000
    emissions[:, 1::2, 2] += 1000
    torch.testing.assert_close(crf(emissions, tags, mask), twin(emissions, tags, mask))
    assert_same_gradients(crf, twin, emissions, tags, mask, lambda model, *inputs: model(*inputs))


def test_only_what_needs_a_gradient_gets_one():
    crf, _, emissions, tags, mask = make_case()
    crf.requires_grad_(False)
    emissions.requires_grad_()
    crf(emissions, tags, mask).backward()
    assert emissions.grad is not None
    crf.requires_grad_()
    crf(emissions.detach(), tags, mask).backward()
    assert crf.start_transitions.grad is not None


def test_errors_are_those_of_pytorch_crf():
    crf, _, emissions, tags, mask = make_case()
    with pytest.raises(ValueError, match="invalid number of tags: 0"):
        CRF(0)
    with pytest.raises(ValueError, match="invalid reduction: foo"):
        crf(emissions, tags, mask, reduction="foo")
    with pytest.raises(ValueError, match="expected last dimension of emissions is 3, got 2"):
        crf.decode(emissions[..., :2])
    with pytest.raises(ValueError, match="mask of the first timestep must all be on"):
        crf.viterbi(emissions, torch.zeros_like(mask))
    assert repr(crf) == "CRF(num_tags=3)"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_gpu():
    crf, _, emissions, tags, mask = make_case(length=50, batch=30)
    spans = all_spans(mask)
    expected = [
        gradients(crf, emissions, tags, mask, lambda model, *inputs: model(*inputs)),
        crf.viterbi(emissions, mask),
        crf.span_log_prob(emissions, spans, mask),
    ]
    inputs = [tensor.cuda() for tensor in (emissions, tags, mask)]
    crf.cuda()
    spans = TagSpans(*(getattr(spans, name).cuda() for name in spans.__slots__))
    found = [
        gradients(crf, *inputs, lambda model, *inputs: model(*inputs)),
        crf.viterbi(inputs[0], inputs[2]),
        crf.span_log_prob(inputs[0], spans, inputs[2]),
    ]
    torch.testing.assert_close(found, expected, check_device=False)
