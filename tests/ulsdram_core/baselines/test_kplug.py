"""K-PLUG's pre-training: phrases, masks and losses by hand; it learns what it is shown."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from ulsdram_core.baselines.kplug import (
    KnownText,
    KplugConfig,
    KplugModel,
    corrupt,
    find_phrases,
    piece_range,
    pretrain,
)
from ulsdram_core.encoders.text_encoder import TextEncoderConfig
from ulsdram_core.text import TextConfig, TextProcessor

KNOWN = {("red",), ("dark", "red"), ("cotton",)}


@pytest.fixture
def texts(tokenizer, products):
    """Each title and description with its color and material as known phrases."""
    reader = TextProcessor(tokenizer, TextConfig(sources=("title", "description")))
    found = []
    for product in products:
        (window,) = reader.encode(product.texts)
        places = zip(window.unit_source, window.unit_start, window.unit_end, strict=True)
        names = ("title", "description")
        units = [product.texts[names[s]][a:b].lower() for s, a, b in places]
        values = {(span.value,) for span in product.gold}
        phrases = tuple(find_phrases(units, values, 1))
        found.append(KnownText(window, phrases, int(product.category == "shoes")))
    return found


def test_the_longest_phrase_wins_from_the_left():
    units = ["a", "dark", "red", "cotton", "dark", "shirt", "red"]
    assert find_phrases(units, KNOWN, 2) == [(1, 3), (3, 4), (6, 7)]
    assert find_phrases([], KNOWN, 2) == []


def test_pieces_of_a_phrase_end_before_the_separators(tokenizer):
    reader = TextProcessor(tokenizer, TextConfig(sources=("title", "description")))
    (window,) = reader.encode({"title": "red zzzz", "description": "soft yyyy"})
    pieces = tokenizer.convert_ids_to_tokens(window.piece_ids)
    spelled = [
        "".join(pieces[slice(*piece_range(window, (unit, unit + 1)))]).replace("##", "")
        for unit in range(4)
    ]
    assert spelled == ["red", "zzzz", "soft", "yyyy"]


def test_masks_hide_known_phrases_and_keep_what_they_were(texts, tokenizer):
    mask_id = tokenizer.mask_token_id
    batch = corrupt(texts, mask_id=mask_id, share=1.0, generator=torch.Generator().manual_seed(0))
    for row, text in enumerate(texts):
        original = text.window.piece_ids
        hidden = {p for span in text.phrases for p in range(*piece_range(text.window, span))}
        for place, piece in enumerate(original):
            expected = (mask_id, piece) if place in hidden else (piece, -100)
            assert (int(batch.piece_ids_BL[row, place]), int(batch.wanted_BL[row, place])) == (
                expected
            )
            wanted_tags = {1, 2} if place in hidden else {0}
            assert int(batch.boundary_BL[row, place]) in wanted_tags
        assert (batch.boundary_BL[row] == 1).sum() == len(text.phrases)
        assert batch.mask_BL[row].sum() == len(original)
        generated = batch.phrase_BT[row][batch.phrase_BT[row] >= 0].tolist()
        spans = [original[slice(*piece_range(text.window, s))].tolist() for s in text.phrases]
        assert generated in spans


def test_a_text_without_known_phrases_loses_a_few_units(texts, tokenizer):
    bare = [KnownText(text.window, ()) for text in texts]
    batch = corrupt(
        bare, mask_id=tokenizer.mask_token_id, share=0.5, generator=torch.Generator().manual_seed(0)
    )
    assert (batch.wanted_BL >= 0).any(1).all()
    assert not (batch.boundary_BL > 0).any()
    assert (batch.category_B == -1).all()


@torch.no_grad()
def test_losses_equal_one_text_at_a_time(texts, tokenizer):
    """The decoder sees what it has written and the whole corrupted text, and no padding."""
    torch.manual_seed(0)
    encoder = TextEncoderConfig(hidden=16, heads=2, layers=1).build(len(tokenizer))
    model = KplugModel(encoder, KplugConfig(decoder_layers=1, decoder_heads=2), 2).eval()
    batch = corrupt(
        texts,
        mask_id=tokenizer.mask_token_id,
        share=1.0,
        generator=torch.Generator().manual_seed(1),
    )
    found = model(batch)
    fill, write, tags, kinds = [], [], [], []
    table = encoder.embeddings.word_embeddings.weight
    for row in range(len(texts)):
        length = int(batch.mask_BL[row].sum())
        ids, types = batch.piece_ids_BL[row, :length], batch.piece_types_BL[row, :length]
        whole = torch.ones(1, length, dtype=torch.bool)
        memory = encoder(encoder.embed(ids[None], types[None]), whole)[0]
        for place in range(length):
            wanted = batch.wanted_BL[row, place]
            scores = model.transform(memory[0, place]) @ table.T + model.vocabulary_bias
            if wanted >= 0:
                fill.append(functional.cross_entropy(scores, wanted))
            scores = model.boundary(memory[0, place])
            tags.append(functional.cross_entropy(scores, batch.boundary_BL[row, place]))
        phrase = batch.phrase_BT[row][batch.phrase_BT[row] >= 0]
        for step, piece in enumerate(phrase):
            before = torch.cat([ids[:1], phrase[:step]])[None]
            size = before.shape[1]
            later = torch.ones(size, size, dtype=torch.bool).triu(1)
            embedded = encoder.embed(before, torch.zeros_like(before))
            state = model.decoder(embedded, memory, tgt_mask=later)[0, -1]
            scores = model.transform(state) @ table.T + model.vocabulary_bias
            write.append(functional.cross_entropy(scores, piece))
        kinds.append(functional.cross_entropy(model.category(memory[0, 0]), batch.category_B[row]))
    for name, losses in (
        ("fill", fill),
        ("generate", write),
        ("boundary", tags),
        ("category", kinds),
    ):
        assert_close(found[name], torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)


def test_it_learns_what_it_is_shown(texts, tokenizer):
    torch.manual_seed(0)
    encoder = TextEncoderConfig(hidden=32, heads=2, layers=1, dropout=0.0).build(len(tokenizer))
    config = KplugConfig(epochs=60, batch_size=6, rate=5e-3, decoder_layers=1, decoder_heads=2)
    losses = list(pretrain(encoder, texts, config, mask_id=tokenizer.mask_token_id))
    assert losses[-1] < 0.3 * losses[0]


def test_equal_seeds_give_equal_encoders(texts, tokenizer):
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = TextEncoderConfig(hidden=16, heads=2, layers=1).build(len(tokenizer))
        config = KplugConfig(epochs=1, decoder_layers=1, decoder_heads=2)
        list(pretrain(encoder, texts, config, mask_id=tokenizer.mask_token_id))
        found.append(np.concatenate([p.detach().numpy().ravel() for p in encoder.parameters()]))
    assert np.array_equal(*found)


def test_nothing_to_learn_from_is_a_clear_error(tokenizer):
    encoder = TextEncoderConfig(hidden=16, heads=2, layers=1).build(len(tokenizer))
    with pytest.raises(ValueError, match="no unlabelled texts"):
        next(pretrain(encoder, [], KplugConfig(), mask_id=4))
