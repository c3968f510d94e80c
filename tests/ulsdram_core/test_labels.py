import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.errors import LabelError
from ulsdram_core.labels import (
    AlignedSpan,
    B,
    I,
    LabelSet,
    O,
    align_gold,
    batch_class_spans_from_tags,
    class_tags,
    match_texts,
    pair_tags,
)
from ulsdram_core.schema import GoldSpan, Product
from ulsdram_core.text import TextConfig, TextProcessor

LABELS = LabelSet(attributes=("Color", "Fit", "Material"))


def spans_of(tags, sources=None):
    """(start, end) of one row of O, B, I."""
    sources = None if sources is None else np.asarray(sources)[None]
    _, _, starts, ends = batch_class_spans_from_tags(np.asarray(tags)[None], None, sources)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def match_title(text, specs, **options):
    return list(match_texts({"title": text}, specs, **options).spans)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["navy blue slim-fit jeans of soft cotton"] * 3, vocab_size=200)


def product(*attributes, category=None, labelled=True):
    gold = tuple(GoldSpan(name, "x", 0, 1) for name in attributes)
    return Product("p", {"title": "x"}, category=category, gold=gold if labelled else None)


def gold(attribute, text, value, source="title"):
    start = text.index(value)
    return GoldSpan(attribute, value, start, start + len(value), source)


def reference_spans(tags, sources):
    """What seqeval does, one tag at a time; a change of source closes a span."""
    spans = []
    for place, tag in enumerate(tags):
        kind = (tag - 1) // 2
        goes_on = (
            spans
            and spans[-1][2] == place
            and spans[-1][0] == kind
            and tag % 2 == 0
            and sources[place] == sources[place - 1]
        )
        if tag == O:
            continue
        if goes_on:
            spans[-1] = (kind, spans[-1][1], place + 1)
        else:
            spans.append((kind, place, place + 1))
    return spans


def test_labels_are_ordered_by_count_then_name():
    products = [product("b", "c", "c"), product("a", "b"), product("z"), product(labelled=False)]
    assert LabelSet.from_products(products).attributes == ("b", "a", "c", "z")
    assert LabelSet.from_products(products, min_count=2).attributes == ("b",)


def test_categories_learn_their_attributes():
    products = [product("a", "b", category="shoes"), product("c", category="bags"), product("a")]
    labels = LabelSet.from_products(products, with_categories=True)
    assert labels.category_attributes == {"bags": ("c",), "shoes": ("a", "b")}
    assert labels.allowed("bags").tolist() == [False, False, True]
    assert labels.allowed(None).all()
    assert labels.allowed("hats").all()
    assert LabelSet.model_validate_json(labels.model_dump_json()) == labels


def test_attributes_with_one_value_are_learned():
    spans = {name: [gold(name, "Red red Blue", value) for value in ("Red", "red")] for name in "ab"}
    other = gold("b", "Red red Blue", "Blue")
    rare = [gold("rare", "Red red Blue", "Red")]
    usual = [Product(str(i), {}, gold=(*spans["a"], *spans["b"])) for i in range(1000)]
    odd = Product("odd", {}, gold=(*spans["b"], other))
    few = [Product(f"few{i}", {}, gold=tuple(rare)) for i in range(99)]
    products = [*usual, *few, odd]
    assert LabelSet.from_products(products).single == ()
    assert LabelSet.from_products(products, with_single=True).single == ("b", "a")
    one_more = LabelSet.from_products([*products, odd], with_single=True)
    assert one_more.single == ("a",)
    assert LabelSet.model_validate_json(one_more.model_dump_json()) == one_more


def test_unknown_attributes_and_empty_sets_are_errors():
    with pytest.raises(LabelError, match="not among the 3 labels"):
        LABELS.index("Sleeve")
    with pytest.raises(LabelError, match="found 0 annotated attributes"):
        LabelSet.from_products([product(labelled=False)])
    with pytest.raises(ValueError, match="repeat"):
        LabelSet(attributes=("a", "a"))
    with pytest.raises(ValueError, match="not in attributes"):
        LabelSet(attributes=("a",), category_attributes={"x": ("b",)})
    with pytest.raises(ValueError, match=r"single names \['b'\], not in attributes"):
        LabelSet(attributes=("a",), single=("b",))
    assert LABELS.index("Fit") == 1
    assert "Fit" in LABELS
    assert len(LABELS) == 3


def test_gold_lands_on_units_of_its_source(tokenizer):
    texts = {"title": "Navy blue slim-fit jeans", "description": "soft cotton"}
    config = TextConfig(sources=("title", "description"))
    windows = TextProcessor(tokenizer, config).encode(texts)
    spans = [
        gold("Material", texts["description"], "cotton", "description"),
        gold("Color", texts["title"], "Navy blue"),
        gold("Fit", texts["title"], "slim-fit"),
    ]
    found = align_gold(windows, spans, LABELS, config.sources)
    assert found.spans == (AlignedSpan(2, 7, 8), AlignedSpan(0, 0, 2), AlignedSpan(1, 2, 5))
    assert (found.num_snapped, found.num_unknown, found.num_outside) == (0, 0, 0)


def test_what_does_not_fit_exactly_is_counted(tokenizer):
    text = "navy blue jeans"
    windows = TextProcessor(tokenizer, TextConfig()).encode({"title": text})
    spans = [
        GoldSpan("Color", "avy b", 1, 6),
        GoldSpan("Color", "blue", 5, 9),
        GoldSpan("Material", " jeans", 9, 15),
        GoldSpan("Sleeve", "navy", 0, 4),
        GoldSpan("Fit", " ", 4, 5),
        GoldSpan("Fit", "x", 90, 91),
        GoldSpan("Fit", "navy", 0, 4, source="bullets"),
    ]
    found = align_gold(windows, spans, LABELS)
    assert found.spans == (AlignedSpan(0, 0, 2), AlignedSpan(2, 2, 3))
    assert (found.num_snapped, found.num_unknown) == (2, 1)
    assert (found.num_outside, found.num_overlapping) == (3, 1)


def test_no_windows_leave_all_gold_outside():
    found = align_gold([], [GoldSpan("Fit", "x", 0, 1)], LABELS)
    assert (found.spans, found.num_outside) == ((), 1)


def test_latin_and_digit_runs_do_not_shift_character_tags(tokenizer):
    text = "HC 2024\u5706\u9886T\u6064"
    config = TextConfig(unit="character")
    [window] = TextProcessor(tokenizer, config).encode({"title": text})
    [span] = align_gold([window], [gold("Fit", text, "\u5706\u9886")], LABELS).spans
    tags = pair_tags([span], window)
    assert [text[window.unit_start[i]] for i in np.flatnonzero(tags)] == ["\u5706", "\u9886"]
    assert tags.tolist() == [O] * 6 + [B, I] + [O] * 2


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_give_back_every_span_once(tokenizer, data):
    config = TextConfig(
        sources=("title", "description"), max_pieces=20, overlap_pieces=6, unit="character"
    )
    texts = {"title": "abcdefgh" * 3, "description": "ijklmnop" * 5}
    windows = TextProcessor(tokenizer, config).encode(texts)
    assert len(windows) > 3
    spans = []
    for _ in range(data.draw(st.integers(0, 8))):
        source = data.draw(st.sampled_from(config.sources))
        start = data.draw(st.integers(0, len(texts[source]) - 6))
        end = start + data.draw(st.integers(1, 6))
        spans.append(GoldSpan("Color", texts[source][start:end], start, end, source))
    aligned = align_gold(windows, spans, LABELS, config.sources)
    found = []
    for window in windows:
        tags = pair_tags(aligned.seen_by(window), window)
        for start, end in spans_of(tags, window.unit_source):
            first = window.first_unit + start
            if window.owned[0] <= first < window.owned[1]:
                found.append(AlignedSpan(0, first, window.first_unit + end))
    assert sorted(found, key=lambda span: span.start_unit) == sorted(
        aligned.spans, key=lambda span: span.start_unit
    )


def test_a_window_shows_its_slice_of_the_products_tags(tokenizer):
    config = TextConfig(max_pieces=16, overlap_pieces=4, unit="character")
    windows = TextProcessor(tokenizer, config).encode({"title": "x" * 40})
    [whole] = TextProcessor(tokenizer, TextConfig(unit="character")).encode({"title": "x" * 40})
    spans = [AlignedSpan(0, 2, 25), AlignedSpan(1, 30, 31)]
    for window in windows:
        cut = slice(window.first_unit, window.first_unit + window.num_units)
        assert np.array_equal(pair_tags(spans, window), pair_tags(spans, whole)[cut])
        assert np.array_equal(class_tags(spans, window), class_tags(spans, whole)[cut])


def test_class_tags_let_later_spans_overwrite(tokenizer):
    [window] = TextProcessor(tokenizer, TextConfig()).encode({"title": "a b c d"})
    tags = class_tags([AlignedSpan(0, 0, 3), AlignedSpan(2, 1, 2)], window)
    assert tags.tolist() == [1, 5, 2, 0]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ([], []),
        ([I], [(0, 1)]),
        ([O, I, I, O, B, B, I], [(1, 3), (4, 5), (5, 7)]),
        ([I, B, O, I], [(0, 1), (1, 2), (3, 4)]),
    ],
)
def test_tags_of_one_row(tags, spans):
    assert spans_of(np.array(tags, dtype=np.int64)) == spans


def test_spans_stop_where_the_source_changes():
    assert spans_of(np.array([B, I, I]), np.array([0, 0, 1])) == [(0, 2), (2, 3)]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), num_attributes=st.integers(1, 3))
def test_batches_of_tags_equal_the_slow_reference(data, num_attributes):
    num_rows, num_units = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 9))
    seed = data.draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    tags = random.integers(0, 2 * num_attributes + 1, (num_rows, num_units))
    lengths = random.integers(0, num_units + 1, num_rows)
    sources = np.sort(random.integers(0, 2, (num_rows, num_units)), axis=1)
    expected = [
        (row, *span)
        for row in range(num_rows)
        for span in reference_spans(tags[row, : lengths[row]], sources[row])
    ]
    columns = batch_class_spans_from_tags(tags, lengths, sources)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_every_match_of_every_value_counts():
    text = "Navy Blue jeans, NAVY blue belt; blue-black"
    found = match_title(text, [("Color", "navy blue"), ("Shade", "Blue"), ("Fit", "jean")])
    assert [(span.attribute, span.value) for span in found] == [
        ("Color", "Navy Blue"),
        ("Color", "NAVY blue"),
        ("Shade", "Blue"),
        ("Shade", "blue"),
        ("Shade", "blue"),
    ]
    assert all(text[span.start : span.end] == span.value for span in found)


def test_values_found_in_no_text_are_missing():
    texts = {"title": "blue jeans", "description": "slim fit"}
    specs = [("Fit", "Slim"), ("Color", "blue"), ("Color", "red"), ("Note", "--"), ("Note", " ")]
    found = match_texts(texts, specs)
    assert {(span.source, span.value) for span in found.spans} == {
        ("title", "blue"),
        ("description", "slim"),
    }
    assert found.missing == (("Color", "red"), ("Note", "--"), ("Note", " "))


@pytest.mark.parametrize(
    ("text", "value", "starts"),
    [
        ("a a a a a", "a a", [0, 4]),
        ("\u0130x \u0130X", "\u0130x", [0, 3]),
        ("3.5 in", "3.5 In", [0]),
    ],
)
def test_matches_of_one_value_do_not_overlap(text, value, starts):
    assert [span.start for span in match_title(text, [("A", value)])] == starts


def test_character_units_match_inside_runs():
    assert match_title("TOPS", [("A", "op")]) == []
    assert [s.value for s in match_title("TOPS", [("A", "op")], unit="character")] == ["OP"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["x", "x y", "y z", "x y z"]))))
def test_overwriting_reads_as_class_tags_do(tokenizer, specs):
    text = "x y z x y x z y z"
    [window] = TextProcessor(tokenizer, TextConfig()).encode({"title": text})
    labels = LabelSet(attributes=("A", "B", "C"))
    specs = list(dict.fromkeys(specs))
    painted = []
    for span in match_title(text, specs):
        painted.append(
            AlignedSpan(labels.index(span.attribute), span.start // 2, span.end // 2 + 1)
        )
    columns = batch_class_spans_from_tags(class_tags(painted, window)[None])
    expected = [(a, 2 * s, 2 * e - 1) for _, a, s, e in zip(*columns, strict=True)]
    found = match_title(text, specs, overwrite=True)
    assert [(labels.index(s.attribute), s.start, s.end) for s in found] == expected
