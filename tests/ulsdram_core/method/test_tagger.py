"""Tag scores, likelihoods and span probabilities against enumeration."""

from itertools import product as combinations

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.method import tagger as tagger_module
from ulsdram_core.method.crf import TagSpans
from ulsdram_core.method.range_policy import PairFeatures
from ulsdram_core.method.tagger import TaggerConfig

UNITS, WIDTH = 5, 6


def build(kind, num_tags=3, seed=0):
    torch.manual_seed(seed)
    return TaggerConfig(kind=kind).build(WIDTH, num_tags).eval()


def span_of(start, end, begin=1):
    columns = (0, start, end, begin, begin + 1)
    return TagSpans(*(torch.tensor([column]) for column in columns))


def brute_force(log_likelihood, scores, start, end, begin, length):
    """Sum of P over all tag sequences with B I..I at [start, end), not continued."""
    num_tags, total = scores.shape[-1], 0.0
    for tags in combinations(range(num_tags), repeat=length):
        wanted = [begin] + [begin + 1] * (end - start - 1)
        goes_on = end < length and tags[end] == begin + 1
        if list(tags[start:end]) == wanted and not goes_on:
            total += float(log_likelihood(scores[:length], list(tags)).exp())
    return total


@pytest.mark.parametrize("kind", ["softmax", "crf", "bilstm_crf"])
@pytest.mark.parametrize("length", [UNITS, UNITS - 2])
@torch.no_grad()
def test_span_probability_equals_enumeration(reference, kind, length):
    tagger = build(kind)
    scores = torch.randn(1, UNITS, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(UNITS)[None] < length
    model = type("Holder", (), {"tagger": tagger, "config": None})
    model.config = type("Config", (), {"tagger": tagger_config(kind)})

    def log_likelihood(row, tags):
        return reference.log_likelihood(model, row, tags).sum()

    for start in range(length):
        for end in range(start + 1, length + 1):
            found = tagger.span_log_prob(scores, span_of(start, end), mask).exp()
            wanted = brute_force(log_likelihood, scores[0], start, end, 1, length)
            assert float(found[0]) == pytest.approx(wanted, abs=1e-6)


def tagger_config(kind):
    return TaggerConfig(kind=kind)


@torch.no_grad()
def test_span_probability_of_the_second_attribute_without_a_policy():
    tagger = build("softmax", num_tags=5)
    scores = torch.randn(1, UNITS, 5)
    probability = scores.softmax(-1)[0]
    found = tagger.span_log_prob(scores, span_of(1, 3, begin=3), torch.ones(1, UNITS, dtype=bool))
    wanted = probability[1, 3] * probability[2, 4] * (1 - probability[3, 4])
    assert_close(found.exp().float(), wanted[None])


@torch.no_grad()
def test_certain_spans_have_probability_one():
    for kind in ("softmax", "crf"):
        scores = torch.full((1, 200, 3), -30.0)
        scores[:, :, 0] = 30.0
        scores[0, 5:195] = torch.tensor([-30.0, -30.0, 30.0])
        scores[0, 5] = torch.tensor([-30.0, 30.0, -30.0])
        log_prob = build(kind).span_log_prob(scores, span_of(5, 195), torch.ones(1, 200).bool())
        assert -1e-6 < float(log_prob[0]) <= 1e-9


@pytest.mark.parametrize("kind", ["softmax", "crf", "bilstm_crf"])
def test_nll_equals_the_reference_and_ignores_padding(reference, kind):
    tagger = build(kind)
    scores = torch.randn(2, UNITS, 3, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    tags = torch.tensor([[0, 1, 2, 0, 1], [1, 2, 0, 2, 2]])
    nll = tagger.nll(scores, tags, mask)
    model = type("Holder", (), {"tagger": tagger})
    model.config = type("Config", (), {"tagger": tagger_config(kind)})
    for row, length in enumerate((5, 3)):
        wanted = reference.log_likelihood(
            model, scores[row, :length].detach(), tags[row, :length].tolist()
        )
        assert_close(-nll[row], wanted.reshape(()), rtol=1e-5, atol=1e-5)
    nll.sum().backward()
    assert scores.grad[1, 3:].eq(0).all()


@pytest.mark.parametrize("kind", ["softmax", "crf", "bilstm_crf"])
def test_no_rows(kind):
    tagger = build(kind)
    features = PairFeatures(torch.randn(2, UNITS, WIDTH), torch.zeros(0, dtype=torch.long))
    mask = torch.zeros(0, UNITS, dtype=torch.bool)
    scores = tagger(features, mask)
    assert scores.shape == (0, UNITS, 3)
    assert tagger.nll(scores, torch.zeros(0, UNITS, dtype=torch.long), mask).shape == (0,)
    assert tagger.decode(scores, mask).shape == (0, UNITS)


@torch.no_grad()
def test_extraction_works_in_pieces_of_bounded_memory(monkeypatch):
    tagger = build("bilstm_crf")
    base = torch.randn(4, UNITS, WIDTH)
    window = torch.tensor([0, 0, 1, 2, 2, 3, 3])
    mask = torch.arange(UNITS)[None] < torch.tensor([5, 5, 2, 4, 4, 1, 1])[:, None]
    whole = tagger(PairFeatures(base, window), mask)
    monkeypatch.setattr(tagger_module, "MAX_STATES", 2 * UNITS * 2 * tagger.lstm.hidden)
    pieces = tagger(PairFeatures(base, window), mask)
    assert_close(pieces, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "crf", "bilstm_crf"])
def test_a_data_parallel_wrapper_sees_the_crf_in_the_forward_pass(kind):
    tagger = build(kind).train()
    features = PairFeatures(torch.randn(2, UNITS, WIDTH), torch.arange(2))
    tagger(features, torch.ones(2, UNITS, dtype=torch.bool)).sum().backward()
    for name, parameter in tagger.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith("tags."):
            assert parameter.grad.eq(0).all()


def test_hidden_defaults_to_half_the_width():
    assert build("bilstm_crf").lstm.hidden == WIDTH // 2
    assert TaggerConfig(hidden=7).build(WIDTH, 3).lstm.hidden == 7
