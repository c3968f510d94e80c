"""One product explained, as text and as a page."""

import json
import re

import numpy as np
import pytest

from pipelines.command.terminal import Style
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from pipelines.report.explain import explain, explanation_page, explanation_text, find_product
from pipelines.report.model_view import ModelView, scaled, system_name
from ulsdram_core.method.model import ModelConfig


@pytest.fixture(scope="module")
def view(shop):
    return ModelView.load(Storage.of(shop.model("dram")))


@pytest.fixture(scope="module")
def product(shop):
    with_picture = next(p for p in shop.products if p.picture and not p.is_small)
    return with_picture.to_product()


def test_every_word_has_a_map_in_reading_order(view, product):
    found = explain(view, product)
    words = [product.texts[m.span.source][m.span.start : m.span.end] for m in found.maps]
    assert words == re.findall(r"\w+|[^\w\s]", product.texts["title"])
    assert all(m.weights.shape[0] == 1 for m in found.maps)
    assert found.extraction == view.extract([product])[0]


def test_named_words_only(view, product):
    word = product.texts["title"].split()[0]
    found = explain(view, product, [word.upper()])
    assert {product.texts[m.span.source][m.span.start : m.span.end] for m in found.maps} == {word}
    with pytest.raises(ValueError, match="--tokens"):
        explain(view, product, ["nosuchword"])


def test_page_shows_both_models(shop, view, product):
    other = ModelView.load(Storage.of(shop.model("vl")))
    html = explanation_page([explain(view, product), explain(other, product)])
    card = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])["cards"][0]
    assert [side["name"] for side in card["sides"]] == ["ULS-DRAM", "ULS-VL"]
    assert len(card["sides"][0]["maps"]) == len(card["sides"][1]["maps"]) > 2


@pytest.mark.parametrize("is_coloured", [False, True])
def test_text_shows_values_range_and_maps(view, product, is_coloured):
    found = explain(view, product)
    text = explanation_text(found, style=Style(is_coloured), width=80)
    assert ("\x1b[" in text) == is_coloured
    for value in found.extraction.values:
        assert value.value in text
    for entry in found.extraction.range:
        assert f"{entry.score:.3f}" in text
    assert "picture 1" in text
    assert "\u2588" in text


def test_text_of_an_attacking_product_without_picture(view, shop):
    reader = ProductReader(Storage.of(shop.catalogue))
    product = find_product(reader, shop.products[4].product_id)
    product.texts["title"] = "red\x1b[2J shirt"  # type: ignore[index]
    text = explanation_text(explain(view, product), style=Style(False))
    assert "\x1b" not in text
    assert "undecodable_picture" in text
    with pytest.raises(ValueError, match="--product-id"):
        find_product(reader, "nobody")


def test_a_model_without_pictures_has_no_maps(shop, product):
    view = ModelView.load(Storage.of(shop.model("text")))
    assert view.name == "ULS-L"
    found = explain(view, product)
    assert found.maps == ()
    assert "no heatmaps" in explanation_page([found])


@pytest.mark.parametrize(
    ("fusion", "policy", "name"),
    [
        ("tir", "prototype", "ULS-DRAM"),
        ("tir", "none", "ULS-VL + TIR"),
        ("concat", "none", "ULS-VL"),
        ("concat", "prototype", "ULS-VL + PAR"),
        ("self_attention", "none", "ULS-VL (self-attention)"),
        ("none", "none", "ULS-L"),
        ("none", "prototype", "ULS-L + PAR"),
    ],
)
def test_names_of_the_papers_systems(fusion, policy, name):
    image = None if fusion == "none" else {"architecture": "tiny"}
    config = ModelConfig(
        fusion={"kind": fusion}, policy={"kind": policy}, image_encoder=image, head="released"
    )
    assert system_name(config) == name


def test_scaling_is_per_picture_and_survives_flat_maps():
    weights = np.array([[[-1.0, 3.0]], [[2.0, 2.0]]], dtype=np.float32)
    assert scaled(weights).tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]
