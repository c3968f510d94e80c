import numpy as np
import pytest

from ulsdram_core.encoders.tokenizer import (
    SPECIAL_TOKENS,
    build_tokenizer,
    load_tokenizer,
    save_tokenizer,
)

TEXTS = [
    *(f"slim fit stretch jean number {i} in navy blue with wide legs" for i in range(50)),
    "\u5706\u9886\u62fc\u63a5\u8fde\u8863\u88d9 T\u6064 na\u00efve \u00bd \U0001f457",
]


def test_round_trip_through_a_folder(tmp_path):
    built = build_tokenizer(TEXTS, vocab_size=200)
    save_tokenizer(built, tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "Stretch JEANS 99 \u9886 unseen"
    assert loaded.get_vocab() == built.get_vocab()
    assert loaded(text).input_ids == built(text).input_ids
    assert loaded.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    assert loaded.pad_token_id == 0
    assert loaded.cls_token_id == 2


def test_ids_are_dense_and_seen_characters_known():
    tokenizer = build_tokenizer(TEXTS, vocab_size=200)
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    for text in [*TEXTS, "zxq 0123456789 unrelatedword!"]:
        assert "[UNK]" not in tokenizer.tokenize(text)


def test_frequent_words_are_one_piece():
    assert build_tokenizer(TEXTS, vocab_size=400).tokenize("Stretch jean") == ["stretch", "jean"]


def test_a_small_vocabulary_still_holds_every_character():
    tokenizer = build_tokenizer(iter(TEXTS), vocab_size=10)
    assert "[UNK]" not in tokenizer.tokenize(TEXTS[-1])


def test_the_same_texts_build_the_same_vocabulary():
    letters = np.random.default_rng(0).choice(list("abcdeilmnorstu"), (400, 6))
    texts = [" ".join("".join(word) for word in letters[i : i + 8]) for i in range(0, 400, 8)]
    first, *others = (build_tokenizer(texts, 400).get_vocab() for _ in range(4))
    assert all(vocabulary == first for vocabulary in others)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path):
    with pytest.raises((ValueError, OSError)):
        load_tokenizer(tmp_path)
