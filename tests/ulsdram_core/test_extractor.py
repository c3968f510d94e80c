"""The extractor: statuses, windows, thresholds, categories, and its independence of batches."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ulsdram_core.extractor import Extractor
from ulsdram_core.parts import Thresholds
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import Product, Status

BROKEN = b"\xff\xd8 this is no JPEG"


@pytest.fixture(scope="module")
def extractor(extractor_of):
    return extractor_of("tir")


@pytest.fixture
def picture(png):
    return png((200, 10, 10), 0)


def fared(extractor, texts, *pictures):
    found = extractor.extract([Product("p", texts, pictures)])[0]
    return found.status, found.reason


def test_a_readable_product_is_ok(extractor, picture):
    assert fared(extractor, {"title": "red shirt"}, picture) == (Status.OK, None)


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ((), Reason.NO_PICTURE),
        ((b"",), Reason.NO_PICTURE),
        ((None,), Reason.NO_PICTURE),
        ((BROKEN,), Reason.UNDECODABLE_PICTURE),
        ((b"x" * 20_000_001,), Reason.PICTURE_TOO_LARGE),
        ((7,), Reason.WRONG_TYPE),
        ((BROKEN, b""), Reason.UNDECODABLE_PICTURE),
        ((b"", BROKEN), Reason.NO_PICTURE),
    ],
)
def test_without_a_usable_picture_the_text_is_read(extractor, pictures, reason):
    texts = {"title": "red cotton shirt"}
    assert fared(extractor, texts, *pictures) == (Status.DEGRADED, reason)
    found = extractor.extract([Product("p", texts, pictures)])[0]
    assert found.range == extractor.extract([Product("p", texts)])[0].range


def test_of_two_pictures_the_usable_one_is_enough(extractor, picture):
    texts = {"title": "red cotton shirt"}
    for pictures in ((BROKEN, picture), (picture, BROKEN)):
        assert fared(extractor, texts, *pictures) == (Status.OK, None)
    both, one, none = (
        extractor.extract([Product("p", texts, pictures)])[0].range
        for pictures in ((BROKEN, picture), (picture,), ())
    )
    assert both == one != none


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({}, Reason.EMPTY_TEXT),
        ({"title": ""}, Reason.EMPTY_TEXT),
        ({"title": " \t\n\u3000"}, Reason.EMPTY_TEXT),
        ({"title": None}, Reason.EMPTY_TEXT),
        ({"brand": "not a column that is read"}, Reason.EMPTY_TEXT),
        ({"title": "a" * 100_001}, Reason.TEXT_TOO_LONG),
        ({"title": "fine", "description": "b " * 60_000}, Reason.TEXT_TOO_LONG),
        ({"title": "half a pair \ud83d of surrogates"}, Reason.INVALID_TEXT),
        ({"title": "fine", "description": "\udcff"}, Reason.INVALID_TEXT),
    ],
)
def test_without_usable_text_a_product_is_quarantined(extractor, picture, texts, reason):
    assert fared(extractor, texts, picture) == (Status.QUARANTINED, reason)


def test_a_text_only_model_misses_no_picture(extractor_of):
    extractor = extractor_of("none")
    assert fared(extractor, {"title": "red shirt"}) == (Status.OK, None)
    assert fared(extractor, {"title": "red shirt"}, BROKEN) == (Status.OK, None)


@pytest.mark.parametrize(
    "text", ["\x00", "\u200b", "a\u0301" * 50, "\U0001f600" * 300, "[SEP]" * 9]
)
def test_odd_texts_do_no_harm(extractor, text):
    assert extractor.extract([Product("p", {"title": text})])[0].status == Status.DEGRADED


def rounded(extraction):
    """An extraction with its numbers to 5 digits."""
    return replace(
        extraction,
        values=tuple(replace(v, confidence=round(v.confidence, 4)) for v in extraction.values),
        range=tuple(replace(r, score=round(r.score, 4)) for r in extraction.range),
    )


@pytest.mark.parametrize("kinds", [("tir",), ("concat", "dynet", "crf"), ("gated", "none")])
def test_answers_do_not_depend_on_the_company(extractor_of, products, kinds):
    extractor = extractor_of(*kinds)
    mixed = [*products, Product("empty", {}), products[3]]
    together = extractor.extract(mixed)
    assert [e.product_id for e in together] == [p.product_id for p in mixed]
    alone = [extractor.extract([product])[0] for product in mixed]
    assert [rounded(e) for e in together] == [rounded(e) for e in alone]
    assert sum(len(e.values) for e in together) > 10
    small = Extractor(extractor.parts, precision="fp32", max_pieces=30, max_windows=2)
    assert [rounded(e) for e in small.extract(mixed)] == [rounded(e) for e in together]


def test_nothing_to_extract(extractor):
    assert extractor.extract([]) == []


def test_values_quote_the_text_and_lie_in_order(extractor, products):
    num_described = 0
    for product, found in zip(products, extractor.extract(products), strict=True):
        for value in found.values:
            assert product.texts[value.source][value.start : value.end] == value.value
            assert 0 <= value.confidence <= 1
        places = [(v.source == "description", v.start, v.end) for v in found.values]
        assert places == sorted(places)
        num_described += any(described for described, _, _ in places)
        scores = [r.score for r in found.range]
        assert scores == sorted(scores, reverse=True)
        assert {v.attribute for v in found.values} <= {r.attribute for r in found.range}
    assert num_described, "values come from both sources"


def test_decoding_ahead_gives_the_same(extractor, products):
    decoded = [extractor.decode(product) for product in products]
    assert all(p.dtype == np.uint8 and p.shape == (32, 32, 3) for d in decoded for p in d.pictures)
    assert extractor.extract_decoded(decoded) == extractor.extract(products)


def test_thresholds_narrow_range_and_values(extractor_of, products):
    free = extractor_of("tir", range={"threshold": 0.0})
    ranges = [len(e.range) for e in free.extract(products)]
    assert set(ranges) == {5}
    shut = extractor_of("tir", thresholds={"attribute": {"color": 1.0}}, range={"threshold": 0.0})
    found = shut.extract(products)
    assert all(len(e.range) == 4 for e in found)
    assert "color" not in {v.attribute for e in found for v in e.values}
    sure = extractor_of("tir", range={"threshold": 0.0}, thresholds={"value": {"size": 1.0}})
    plain = {v.attribute for e in free.extract(products) for v in e.values}
    assert {v.attribute for e in sure.extract(products) for v in e.values} == plain - {"size"}
    capped = extractor_of("tir", range={"threshold": 0.0, "max_attributes": 2})
    assert all(len(e.range) == 2 for e in capped.extract(products))


def test_a_value_threshold_of_1_is_off_even_for_a_confidence_of_1(parts_of, products):
    parts = parts_of("none", "none", "softmax", model={"head": "none"})
    with torch.no_grad():
        parts.model.tagger.score.weight *= 1e4

    def confidences(**limits):
        changed = parts.config.model_copy(update={"thresholds": Thresholds(value=limits)})
        extractor = Extractor(replace(parts, config=changed), device="cpu", precision="fp32")
        values = [v for e in extractor.extract(products) for v in e.values]
        return {v.confidence for v in values if v.attribute == "color"}

    assert 1.0 in confidences()
    assert confidences(color=math.nextafter(1, 0)) == {1.0}
    assert confidences(color=1.0) == set()


@pytest.mark.parametrize("policy", ["prototype", "none"])
def test_category_bounds_range_and_values(extractor_of, products, labels, policy):
    options = {"range": {"threshold": 0.0}}
    scoped = extractor_of("tir", policy, scope_to_category=True, **options).extract(products)
    free = extractor_of("tir", policy, **options).extract(products)
    assert labels.category_attributes is not None
    left_out = 0
    for product, narrow, wide in zip(products, scoped, free, strict=True):
        allowed = set(labels.category_attributes[product.category])
        assert {r.attribute for r in narrow.range} == allowed
        wanted = [v for v in wide.values if v.attribute in allowed]
        assert [(v.attribute, v.start) for v in narrow.values] == [
            (v.attribute, v.start) for v in wanted
        ]
        left_out += len(wide.values) - len(wanted)
    assert left_out > 0
    unseen = Product("x", {"title": "red wool"}, category="hats")
    scoped_one = extractor_of("tir", policy, scope_to_category=True, **options)
    assert len(scoped_one.extract([unseen])[0].range) == 5


def test_repeats_are_merged_on_request(extractor_of):
    product = Product("p", {"title": " ".join(["red cotton shirt"] * 4)})
    plain = extractor_of("none").extract([product])[0].values
    merged = extractor_of("none", merge_repeats=True).extract([product])[0].values
    keys = [(v.attribute, v.value.casefold()) for v in plain]
    assert len(keys) > len(set(keys))
    assert len(merged) == len(set(keys))
    assert set(merged) <= set(plain)


def test_single_attributes_get_one_value(extractor_of):
    product = Product("p", {"title": " ".join(["red cotton shirt"] * 4)})
    parts = extractor_of("none").parts
    known = parts.model_id()
    name = next(v.attribute for v in Extractor(parts).extract([product])[0].values)

    def texts():
        values = Extractor(parts).extract([product])[0].values
        return [v.value.casefold() for v in values if v.attribute == name]

    before = texts()
    assert len(set(before)) > 1
    parts.labels = parts.labels.model_copy(update={"single": (name,)})
    after = texts()
    assert len(set(after)) == 1
    assert after == [text for text in before if text == after[0]]
    assert parts.model_id() != known


def mentions(extraction):
    return [(v.attribute, v.source, v.start, v.end) for v in extraction.values]


def test_long_texts_are_read_to_the_end(demo_extractor, demo_products):
    """The windows of a long description find what the title alone yields, once each."""
    product = next(p for p in demo_products if len(p.gold) >= 4)
    filler = " ".join(["and"] * 400)
    long = Product("long", {"title": f"{product.texts['title']} {filler}"}, product.pictures)
    windows = demo_extractor.text.encode(long.texts)
    assert len(windows) >= 4
    found = demo_extractor.extract([long])[0]
    assert len(mentions(found)) == len(set(mentions(found)))
    starts = np.array([v.start for v in found.values])
    assert (np.diff(starts) >= 0).all()


def test_windows_agree_with_one_long_window(extractor_of, products):
    """Where the network looks one unit far at most, windows and one long window are equal."""
    kinds = ("none", "prototype", "crf")
    text = " ".join(p.texts["title"] for p in products)
    product = Product("long", {"title": text, "description": text[:100]})
    whole = extractor_of(*kinds, text={"sources": ("title", "description"), "max_pieces": 512})
    cut_text = {"sources": ("title", "description"), "max_pieces": 64, "overlap_pieces": 24}
    cut = extractor_of(*kinds, text=cut_text)
    for extractor in (whole, cut):
        _make_local(extractor)
    assert len(whole.text.encode(product.texts)) == 1
    assert len(cut.text.encode(product.texts)) > 3
    one, other = (e.extract([product])[0] for e in (whole, cut))
    assert len(one.values) > 20
    assert {v.source for v in one.values} == {"title", "description"}
    assert mentions(one) == mentions(other)
    for a, b in zip(one.values, other.values, strict=True):
        assert a.confidence == pytest.approx(b.confidence, abs=1e-4)


@torch.no_grad()
def _make_local(extractor):
    """Forget positions and types, attend to nothing, score all attributes alike everywhere."""
    model = extractor.model
    model.text_encoder.embeddings.position_embeddings.weight.zero_()
    model.text_encoder.embeddings.token_type_embeddings.weight.zero_()
    for layer in model.text_encoder.layers:
        layer.attention.output.dense.weight.zero_()
    model.head.score.weight.zero_()
    model.head.score.bias.fill_(3.0)


def test_bf16_gives_the_same_values(demo_extractor, demo_products):
    """>= 99.5% of the values of products seen and not seen in training."""
    from ulsdram_core.demo import DemoConfig, generate_range

    config = DemoConfig(num_products=264, picture_size=32)
    unseen = [row.to_product() for row in generate_range(config, 64, 264)]
    half = Extractor(demo_extractor.parts, device="cpu", precision="bf16")
    catalogue = [*demo_products, *unseen]
    exact, rough = (
        {(e.product_id, *mention) for e in x.extract(catalogue) for mention in mentions(e)}
        for x in (demo_extractor, half)
    )
    assert len(exact) > 900
    share = len(exact & rough) / len(exact | rough)
    assert share >= 0.995, f"{share:.4f} of {len(exact)} values are identical"


def test_a_tiny_model_learns_64_demo_products_by_heart(demo_extractor, demo_products):
    """TAG-F1 1.0: every gold span, nothing else; and the range exactly."""
    for product, found in zip(demo_products, demo_extractor.extract(demo_products), strict=True):
        gold = {(g.attribute, g.source, g.start, g.end) for g in product.gold}
        assert set(mentions(found)) == gold
        assert {r.attribute for r in found.range} == {g.attribute for g in product.gold}


def test_moves_to_the_precision_asked_for(extractor_of):
    assert extractor_of("none").precision == "fp32"
    assert Extractor(extractor_of("none").parts, precision="bf16").precision == "bf16"
