"""Spans, confidences, owners, repeats and the order of the range."""

from itertools import product as combinations

import numpy as np
import pytest
import torch

from ulsdram_core.method.decoding import (
    WindowSpans,
    decode_spans,
    keep_single,
    merge_repeats,
    range_scores,
    spans_to_values,
)
from ulsdram_core.method.model import ModelOutput
from ulsdram_core.method.tagger import TaggerConfig
from ulsdram_core.pairs import Pairs
from ulsdram_core.schema import Value
from ulsdram_core.text import TextConfig, TextProcessor

UNITS = 5


def build_tagger(kind, num_tags):
    torch.manual_seed(1)
    return TaggerConfig(kind=kind).build(4, num_tags).eval()


def path_probabilities(tagger, scores):
    """P of every tag sequence of one row, by enumeration."""
    paths = list(combinations(range(scores.shape[-1]), repeat=len(scores)))
    rows = scores.expand(len(paths), -1, -1)
    nll = tagger.nll(rows, torch.tensor(paths), torch.ones(rows.shape[:2], dtype=torch.bool))
    return dict(zip(paths, (-nll).exp().tolist(), strict=True))


def span_probability(paths, start, end, begin):
    inside = (begin + 1,) * (end - start - 1)
    return sum(
        probability
        for tags, probability in paths.items()
        if tags[start:end] == (begin, *inside) and tags[end : end + 1] != (begin + 1,)
    )


@pytest.mark.parametrize("kind", ["softmax", "crf"])
@pytest.mark.parametrize("guided", [True, False])
@torch.no_grad()
def test_confidence_is_span_probability_times_attribute_score(kind, guided):
    tagger = build_tagger(kind, 3 if guided else 5)
    scores = torch.randn(3, UNITS, 3 if guided else 5) * 2
    mask = torch.arange(UNITS)[None] < torch.tensor([5, 4, 5])[:, None]
    logits = torch.randn(3, 2)
    pairs = Pairs(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 1])) if guided else None
    output = ModelOutput(logits, pairs, scores, mask)
    spans = decode_spans(tagger, output, np.zeros((3, UNITS), dtype=np.int64))
    assert len(spans.window) > 2
    paths = [
        path_probabilities(tagger, row[row_mask])
        for row, row_mask in zip(scores, mask, strict=True)
    ]
    for window, attribute, start, end, confidence in zip(
        spans.window, spans.attribute, spans.start, spans.end, spans.confidence, strict=True
    ):
        row, begin = int(window), 1 + 2 * int(attribute)
        if guided:
            row = {(0, 1): 0, (2, 0): 1, (2, 1): 2}[int(window), int(attribute)]
            begin = 1
        wanted = span_probability(paths[row], int(start), int(end), begin)
        wanted *= float(torch.sigmoid(logits[window, attribute]))
        assert float(confidence) == pytest.approx(wanted, abs=1e-6)


@torch.no_grad()
def test_spans_do_not_cross_sources_and_orphans_open():
    tagger = build_tagger("softmax", 3)
    best = torch.tensor([[1, 2, 2, 0, 2]])
    scores = torch.nn.functional.one_hot(best, 3).float() * 9
    output = ModelOutput(None, Pairs(torch.tensor([0]), torch.tensor([3])), scores, best >= 0)
    spans = decode_spans(tagger, output, np.array([[0, 0, 1, 1, 1]]))
    found = list(zip(spans.start.tolist(), spans.end.tolist(), strict=True))
    assert found == [(0, 2), (2, 3), (4, 5)]
    assert spans.attribute.tolist() == [3, 3, 3]


@torch.no_grad()
def test_no_rows_give_no_spans():
    tagger = build_tagger("crf", 3)
    none = torch.zeros(0, dtype=torch.long)
    output = ModelOutput(
        torch.zeros(2, 2), Pairs(none, none), torch.zeros(0, UNITS, 3), torch.zeros(0, UNITS).bool()
    )
    spans = decode_spans(tagger, output, np.zeros((2, UNITS), dtype=np.int64))
    assert len(spans.window) == len(spans.confidence) == 0


def columns(*rows):
    data = [np.array(column) for column in zip(*rows, strict=True)]
    return WindowSpans(*data)


def test_each_span_counts_once_in_the_window_that_owns_it(tokenizer):
    config = TextConfig(sources=("title", "description"), max_pieces=16, overlap_pieces=4)
    texts = {"title": " ".join(["red shirt"] * 12), "description": "very fine wool"}
    windows = TextProcessor(tokenizer, config).encode(texts)
    assert len(windows) >= 2
    every = columns(
        *(
            (place, 0, unit, unit + 1, 0.5)
            for place, window in enumerate(windows)
            for unit in range(window.num_units)
        )
    )
    values = spans_to_values(
        every, windows, [texts] * len(windows), sources=config.sources, attributes=("color",)
    )
    found = [(v.source, v.start, v.value) for row in values for v in row]
    assert len(found) == len(set(found)) == 24 + 3
    assert all(texts[source][start:].startswith(value) for source, start, value in found)


def value(attribute="color", text="Red", start=0, confidence=0.5):
    return Value(attribute, text, "title", start, start + len(text), confidence)


def test_repeats_keep_the_most_confident_mention_in_the_texts_order():
    values = [
        value(start=0, confidence=0.5),
        value(text="blue", start=4, confidence=0.9),
        value(text="RED", start=9, confidence=0.8),
        value(attribute="brand", start=14, confidence=0.1),
        value(start=18, confidence=0.8),
    ]
    kept = merge_repeats(values)
    assert [(v.attribute, v.value, v.start) for v in kept] == [
        ("color", "blue", 4),
        ("color", "RED", 9),
        ("brand", "Red", 14),
    ]
    assert merge_repeats([]) == ()


def test_attributes_with_one_value_keep_the_most_confident_text():
    values = [
        value(text="blue", start=0, confidence=0.8),
        value(start=4, confidence=0.5),
        value(text="RED", start=9, confidence=0.9),
        value(attribute="finish", text="matt", start=14, confidence=0.1),
        value(attribute="finish", text="shiny", start=20, confidence=0.2),
    ]
    assert [v.start for v in keep_single(values, {"color"})] == [4, 9, 14, 20]
    assert keep_single(values, set()) == tuple(values)
    even = [value(text="blue"), value(text="red", start=5)]
    assert keep_single(even, {"color"}) == (even[0],)


def test_spans_outside_the_category_are_left_out():
    spans = columns((0, 0, 0, 1, 0.5), (0, 1, 1, 2, 0.6), (1, 1, 0, 1, 0.7))
    kept = spans.within(np.array([[True, False], [True, True]]))
    assert kept.window.tolist() == [0, 1]
    assert kept.confidence.tolist() == [0.5, 0.7]


def test_range_is_ordered_best_first():
    logits = torch.logit(torch.tensor([[0.2, 0.9, 0.6], [0.7, 0.7, 0.1]]))
    chosen = torch.tensor([[True, True, True], [True, True, False]])
    first, second = range_scores(logits, chosen)
    assert [a for a, _ in first] == [1, 2, 0]
    assert first[0][1] == pytest.approx(0.9)
    assert [a for a, _ in second] == [0, 1], "equal scores keep the labels' order"
