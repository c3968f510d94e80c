import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from eclip_in_memory import pretrain

from ulsdram_core.checkpoint import load_model, save_model
from ulsdram_core.eclip.bridge import assemble_from_eclip
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.growth import Growth, GrowthConfig
from ulsdram_core.eclip.pairs import catalog_number, draw_streams, make_pair, order_pairs
from ulsdram_core.eclip.parts import load_eclip, save_eclip
from ulsdram_core.eclip.pretraining import PretrainConfig
from ulsdram_core.eclip.retrieval import best_matches, recall_at
from ulsdram_core.eclip.validation import embed_pairs
from ulsdram_core.errors import CheckpointError
from ulsdram_core.image import decode_picture
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig
from ulsdram_core.schema import DecodedProduct
from ulsdram_core.seeding import generator_of
from ulsdram_core.text import TextProcessor

FAST = {"text_rate": 3e-3, "image_rate": 3e-3, "schedule": "constant"}


def decoded(listings, size=32):
    from ulsdram_core.image import ImageConfig

    image = ImageConfig(size=size)
    return [
        DecodedProduct(p.product_id, p.texts, tuple(decode_picture(d, image) for d in p.pictures))
        for p, _ in listings
    ]


def test_pretraining_aligns_texts_and_pictures(parts, pairs):
    config = PretrainConfig.model_validate(
        {"epochs": 12, "stream_pairs": 16, "optim": FAST, "growth": {"max_streams": 1}}
    )
    epochs = list(pretrain(parts, pairs, config, valid=pairs))
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    assert epochs[-1].valid["picture_to_text_r5"] > epochs[0].valid["picture_to_text_r5"] + 0.15
    assert parts.config.is_aligned
    assert not parts.model.training


def test_streams_do_not_change_the_course(parts_of, pairs):
    """16 pairs at once, or 2 x 8: the same batches; without dropout the same weights."""
    text = {"hidden": 32, "layers": 1, "heads": 2, "dropout": 0.0}
    states = []
    for streams, size in ((1, 16), (2, 8)):
        parts = parts_of(model={"text_encoder": text})
        growth = {"start_streams": streams, "max_streams": streams}
        options = {"epochs": 1, "stream_pairs": size, "growth": growth, "optim": FAST}
        options["precision"] = "fp32"  # bf16 where the processor has it is no exact arithmetic
        list(pretrain(parts, pairs, PretrainConfig.model_validate(options)))
        states.append(parts.model.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=2e-4)


def test_the_batch_grows_when_the_loss_stalls():
    config = GrowthConfig(start_streams=1, max_streams=5, factor=2, patience=2, progress=0.1)
    state = config.start()
    streams = []
    for loss in (2.0, 1.0, 0.95, 0.94, 0.93, 0.92, 0.91, 0.90, 0.5):
        state = config.after(state, loss)
        streams.append(state.streams)
    assert streams == [1, 1, 1, 2, 2, 4, 4, 5, 5]
    assert state == Growth(5, 0.5, 0)


def test_listings_of_a_product_stay_together():
    catalogs = [1, 2, 1, 3, 2, 1, 1]
    order = order_pairs(catalogs, generator_of(0), group=4)
    assert sorted(order) == list(range(7))
    assert sum(a != b for a, b in pairwise(catalogs[i] for i in order)) == 2
    assert order != order_pairs(catalogs, generator_of(1), group=4)
    assert sorted(order_pairs(catalogs, generator_of(0), group=1)) == list(range(7))
    for seed in range(9):
        places = order_pairs([5] * 6 + [1, 2, 3, 4], generator_of(seed), group=2)
        runs = "".join("x" if i < 6 else "o" for i in places).split("o")
        assert all(len(run) % 2 == 0 for run in runs)


def test_a_listing_without_catalog_is_its_own_product():
    assert catalog_number("a", "1") == catalog_number("a", "2")
    assert catalog_number(None, "1") != catalog_number(None, "2")
    assert catalog_number("1", "x") != catalog_number(None, "1")
    assert 0 <= catalog_number("a", "1") < 2**63


def test_one_of_several_pictures_is_drawn(pairs):
    several = replace(pairs[0], pictures=(pairs[0].pictures[0], pairs[1].pictures[0]))
    drawn = {
        draw_streams([several], stream_pairs=4, picture_size=32, seed=s)[0]
        .batch.pictures_K3SS.sum()
        .item()
        for s in range(12)
    }
    assert len(drawn) == 2


def test_what_cannot_be_used_is_no_pair(listings, parts):
    text = TextProcessor(parts.tokenizer, parts.config.text)
    product = next(p for p, _ in listings if p.pictures)
    pixels = [decode_picture(product.pictures[0], parts.config.image)]
    assert make_pair(product, pixels, text, None) is not None
    assert make_pair(product, [], text, None) is None
    assert make_pair(replace(product, texts={"title": "  "}), pixels, text, None) is None
    assert make_pair(replace(product, texts={"title": "x" * 100_001}), pixels, text, None) is None


def test_retrieval_against_a_full_sort(monkeypatch):
    monkeypatch.setattr("ulsdram_core.eclip.retrieval.BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 5, generator=generator), dim=-1)
    groups = torch.arange(40) // 3
    own = torch.arange(40)
    found = best_matches(vectors, vectors, 10, own_Q=own)
    scores = vectors @ vectors.T
    scores.fill_diagonal_(-9)
    assert torch.equal(found, scores.sort(descending=True, dim=1).indices[:, :10])
    recall = recall_at(vectors, vectors, groups, groups, ks=(1, 10), own_Q=own)
    for k in (1, 10):
        hits = [(groups[found[i, :k]] == groups[i]).any().item() for i in range(40)]
        assert recall[k] == pytest.approx(sum(hits) / 40)


def test_embeddings_do_not_depend_on_company(parts, listings, pairs):
    products = decoded(listings[:9])
    embedder = Embedder(parts, device="cpu", precision="fp32", max_rows=4)
    together = embedder.embed(products)
    for place, product in enumerate(products):
        alone = embedder.embed([product])
        torch.testing.assert_close(alone.text[0], together.text[place], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.picture[0], together.picture[place], atol=1e-5, rtol=1e-4)
    full = [place for place, product in enumerate(products) if product.pictures]
    wanted = embed_pairs(parts.model, pairs[: len(full)], stream_pairs=8, picture_size=32)
    torch.testing.assert_close(together.text[full], wanted.text_BE, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.picture[full], wanted.picture_BE, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.joint()[full].norm(dim=1), torch.ones(len(full)))


def test_a_product_without_text_or_picture_embeds_as_zero(parts, listings):
    product = next(p for p in decoded(listings) if p.pictures)
    rows = [
        replace(product, texts={}),
        replace(product, pictures=()),
        replace(product, texts={}, pictures=()),
    ]
    found = Embedder(parts, device="cpu").embed(rows)
    assert found.has_text_N.tolist() == [False, True, False]
    assert found.has_picture_N.tolist() == [True, False, False]
    assert not found.text[0].any()
    assert not found.picture[1].any()
    torch.testing.assert_close(found.joint()[0], found.picture[0])
    assert not found.joint()[2].any()


def test_a_model_directory_gives_the_same_model(parts, listings, tmp_path):
    products = decoded(listings[:4])
    wanted = Embedder(parts, device="cpu").embed(products)
    folder = save_eclip(parts, tmp_path / "m")
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".safetensors", ".toml", ".md"}
    again = load_eclip(folder)
    assert again.model_id() == parts.model_id()
    assert torch.equal(Embedder(again, device="cpu").embed(products).text, wanted.text)
    save_eclip(again, folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"kind": "bert"}))
    (tmp_path / "other" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no e-CLIP model"):
        load_eclip(tmp_path / "other")


def test_an_extractor_starts_with_the_encoders(parts, listings, tmp_path):
    labels = LabelSet.from_products([product for product, _ in listings])
    eclip = load_eclip(save_eclip(parts, tmp_path / "m"))
    config = ExtractorConfig.model_validate(
        {
            "model": {
                "text_encoder": {"name": "bert-base-uncased"},
                "image_encoder": {"architecture": "resnet18"},
                "fusion": {"kind": "tir", "tir": {"dim": 8}},
            },
            "image": {"size": 32},
        }
    )
    built = assemble_from_eclip(config, labels, eclip)
    for name in ("text_encoder", "image_encoder"):
        wanted = getattr(parts.model, name).state_dict()
        found = getattr(built.model, name).state_dict()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    again = load_model(save_model(built, tmp_path / "extractor"))
    assert again.model_id() == built.model_id()
    text_only = {"text_encoder": {"name": "tiny"}}
    alone = assemble_from_eclip(ExtractorConfig.model_validate({"model": text_only}), labels, eclip)
    assert alone.model.image_encoder is None
    with pytest.raises(CheckpointError, match="no e-CLIP model"):
        load_eclip(tmp_path / "extractor")
