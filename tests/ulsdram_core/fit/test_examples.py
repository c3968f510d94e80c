"""Labelled products to examples, with a count of everything left out."""

import pytest

from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.image import ImageConfig
from ulsdram_core.schema import GoldSpan, Product
from ulsdram_core.text import TextConfig, TextProcessor


@pytest.fixture
def builder(tokenizer, labels):
    config = TextConfig(sources=("title", "description"), max_pieces=24, overlap_pieces=8)
    return ExampleBuilder(TextProcessor(tokenizer, config), labels, ImageConfig(size=32))


def labelled(text="red cotton shirt", *spans, pictures=()):
    gold = tuple(GoldSpan(a, text[s:e], s, e) for a, s, e in spans)
    return Product("p", {"title": text}, pictures, gold=gold)


def test_one_example_per_window_with_the_same_pictures(builder, png):
    text = " ".join(["red cotton shirt"] * 14)
    end = len(text)
    product = labelled(
        text, ("color", 0, 3), ("material", end - 12, end - 6), pictures=(png((9, 9, 9), 0),)
    )
    examples = list(builder([product]))
    assert len(examples) > 2
    assert all(e.pictures[0] is examples[0].pictures[0] for e in examples)
    assert [[s.attribute for s in e.gold] for e in (examples[0], examples[-1])] == [[0], [1]]
    assert [e.gold for e in examples[1:-1]] == [()] * (len(examples) - 2)
    assert builder.counts["products"] == 1


def test_what_is_left_out_is_counted(builder, png):
    products = [
        labelled("red shirt", ("color", 0, 2), ("brand", 0, 3)),
        labelled("  "),
        labelled("a" * 100_001),
        labelled("wool", pictures=(b"junk", b"", png((1, 2, 3), 0))),
        Product("q", {"title": "x"}, gold=(GoldSpan("color", "red", 5, 8),)),
    ]
    examples = list(builder(products))
    assert len(examples) == 3
    assert [len(e.pictures) for e in examples] == [0, 1, 0]
    assert {name: count for name, count in builder.counts.items() if count} == {
        "products": 5,
        "spans_snapped": 1,
        "spans_unknown_attribute": 1,
        "spans_outside": 1,
        "empty_text": 1,
        "text_too_long": 1,
        "undecodable_picture": 1,
        "no_picture": 1,
    }


def test_a_text_only_builder_decodes_nothing(tokenizer, labels):
    builder = ExampleBuilder(TextProcessor(tokenizer, TextConfig()), labels, None)
    example = next(builder([labelled(pictures=(b"junk",))]))
    assert example.pictures == ()


def test_products_without_gold_are_refused(builder):
    with pytest.raises(ValueError, match=r"'p' has no gold, expected labelled products"):
        list(builder([Product("p", {"title": "x"})]))
