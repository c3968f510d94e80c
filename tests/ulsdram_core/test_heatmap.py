"""Heatmaps of single units and spans, for every fusion that sees pictures."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ulsdram_core.heatmap import TextSpan, heatmaps
from ulsdram_core.schema import DecodedProduct, Product

FUSIONS = ["tir", "concat", "self_attention", "gated"]


@pytest.fixture
def decoded(extractor_of, products):
    return extractor_of("tir").decode(products[7])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_unit_has_a_map_of_each_picture(extractor_of, decoded, fusion):
    extractor = extractor_of(fusion)
    found = heatmaps(extractor, decoded)
    words = [decoded.texts[h.span.source][h.span.start : h.span.end] for h in found]
    assert words[:4] == ["Acme", "blue", "silk", "shirt"]
    assert words[-8:] == ["soft", "silk", "for", "all", "seasons", ",", "size", "7"]
    for heatmap in found:
        assert heatmap.weights_Phw.shape == (3, 2, 2)
        assert heatmap.weights_Phw.dtype == np.float32
    assert len({h.weights_Phw.tobytes() for h in found}) > 5
    assert not np.allclose(found[0].weights_Phw[0], found[0].weights_Phw[1])


def test_tir_shows_the_scores_of_eq_4(extractor_of, decoded, examples_of, products, reference):
    extractor = extractor_of("tir")
    model = extractor.model
    example = examples_of(extractor.parts, products[7:8])[0]
    with torch.no_grad():
        ids = torch.from_numpy(example.window.piece_ids)
        text = reference.embed(model, ids, torch.from_numpy(example.window.piece_types))
        unit = text[example.window.unit_piece[3]]
        picture = torch.from_numpy(example.pictures[1]).permute(2, 0, 1)[None]
        key = model.image_encoder(picture)[0] @ model.fusion.region_key.weight.T
        wanted = key @ (model.fusion.region_query.weight @ unit) / np.sqrt(8)
    found = heatmaps(extractor, decoded)[3].weights_Phw[1]
    assert_allclose(found, wanted.view(2, 2).numpy(), rtol=1e-4, atol=1e-5)


def test_concat_shows_shares_of_the_first_layers_attention(extractor_of, decoded):
    for heatmap in heatmaps(extractor_of("concat"), decoded):
        assert (heatmap.weights_Phw > 0).all()
        assert heatmap.weights_Phw.sum() < 1


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_span_is_the_mean_of_its_units(extractor_of, decoded, fusion):
    extractor = extractor_of(fusion)
    units = heatmaps(extractor, decoded)
    span = TextSpan("title", units[1].span.start, units[2].span.end)
    (found,) = heatmaps(extractor, decoded, [span])
    mean = (units[1].weights_Phw + units[2].weights_Phw) / 2
    assert_allclose(found.weights_Phw, mean, rtol=1e-5)


def test_values_can_be_asked_for(extractor_of, products):
    extractor = extractor_of("tir")
    values = extractor.extract(products[7:8])[0].values
    spans = [TextSpan(v.source, v.start, v.end) for v in values]
    assert spans
    assert len(heatmaps(extractor, extractor.decode(products[7]), spans)) == len(spans)


def test_long_texts_give_each_unit_once(extractor_of, products):
    extractor = extractor_of("concat", text={"max_pieces": 24, "overlap_pieces": 8})
    long = Product("long", {"title": " ".join(["red shirt"] * 30)}, products[3].pictures)
    found = heatmaps(extractor, extractor.decode(long))
    assert len(found) == 60
    assert len({h.span for h in found}) == 60


def test_what_cannot_be_shown_is_refused(extractor_of, decoded):
    extractor = extractor_of("tir")
    with pytest.raises(ValueError, match="without an image encoder"):
        heatmaps(extractor_of("none"), decoded)
    with pytest.raises(ValueError, match=r"'p' has no usable picture \(no_picture\)"):
        heatmaps(extractor, extractor.decode(Product("p", {"title": "red"})))
    with pytest.raises(ValueError, match=r"found no word in \[900, 903\) of 'title'"):
        heatmaps(extractor, decoded, [TextSpan("title", 900, 903)])


def test_empty_text_gives_no_maps(extractor_of, decoded):
    empty = DecodedProduct("p", {}, decoded.pictures)
    assert heatmaps(extractor_of("tir"), empty) == []
