from collections import defaultdict
from io import BytesIO

import pytest
from PIL import Image
from pydantic import ValidationError

from ulsdram_core.demo import (
    ATTRIBUTES,
    CATEGORIES,
    CATEGORY_ATTRIBUTES,
    DemoConfig,
    DemoProduct,
    generate,
    generate_range,
    split,
)


def test_equal_configs_draw_equal_products(products):
    again = list(generate(DemoConfig(num_products=40, picture_size=48)))
    assert again == products[:40]


def test_any_split_of_the_range_draws_the_same(products):
    config = DemoConfig(num_products=5, picture_size=48)
    assert list(generate_range(config, 200, 215)) == products[200:215]
    assert list(generate_range(config, 7, 7)) == []


def test_seeds_differ():
    first, second = (next(generate(DemoConfig(seed=seed, picture_size=48))) for seed in (0, 1))
    assert first.product_id != second.product_id
    assert (first.title, first.picture) != (second.title, second.picture)


def test_texts_do_not_depend_on_pictures(products):
    texts = generate(DemoConfig(num_products=50, with_pictures=False))
    for product, text in zip(products, texts, strict=False):
        assert (product.title, product.gold, product.trait) == (text.title, text.gold, text.trait)
        assert text.picture is None
        assert text.box is None


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (4, 3)])
def test_bad_range_is_refused(start, end):
    with pytest.raises(ValueError, match="expected 0 <= start <= end"):
        generate_range(DemoConfig(), start, end)


def test_bad_shares_are_refused():
    with pytest.raises(ValidationError, match="need a picture"):
        DemoConfig(ambiguous=0.7, missing_pictures=0.4)


def test_gold_offsets_are_exact(listings):
    for product in listings:
        texts = {"title": product.title, "description": product.description}
        assert product.gold
        for span in product.gold:
            assert texts[span.source][span.start : span.end] == span.value
            assert span.value == span.value.strip()
            assert "[" not in span.value
        assert not any(mark in text for text in texts.values() for mark in "[]{}")


def test_values_are_word_bounded_in_english():
    for product in generate(DemoConfig(num_products=800, with_pictures=False)):
        texts = {"title": product.title, "description": product.description}
        for span in product.gold:
            around = f" {texts[span.source]} "[span.start : span.end + 2]
            assert not around[0].isalnum()
            assert not around[-1].isalnum()


def test_attributes_are_scoped_by_category(listings):
    seen = set()
    for product in listings:
        allowed = set(CATEGORY_ATTRIBUTES[product.category])
        assert {span.attribute for span in product.gold} <= allowed
        assert {attribute for attribute, _ in product.specs} == allowed
        seen |= {span.attribute for span in product.gold}
    assert seen == set(ATTRIBUTES)
    assert len(ATTRIBUTES) >= 16
    assert {product.category for product in listings} == set(CATEGORIES)


def test_heel_and_strap_have_their_categories():
    having = {
        name: {c for c in CATEGORIES if name in CATEGORY_ATTRIBUTES[c]}
        for name in ("heel", "strap", "sleeve_length")
    }
    assert having["heel"] == {"shoes"}
    assert having["strap"] == {"bag", "watch"}
    assert having["sleeve_length"] == {"shirt", "dress", "jacket"}


def test_duplicates_share_the_catalogue_entry_and_nothing_else(products):
    by_entry: dict[str, list[DemoProduct]] = defaultdict(list)
    for product in products:
        by_entry[product.catalog_id].append(product)
    repeated = [group for group in by_entry.values() if len(group) > 1]
    share = sum(len(group) - 1 for group in repeated) / len(products)
    assert 0.08 < share < 0.17
    for first, *others in repeated:
        for other in others:
            assert other.specs == first.specs
            assert other.category == first.category
            assert other.title != first.title
            assert other.picture is None or other.picture != first.picture


def test_split_keeps_an_entry_together_and_has_all_parts(products):
    parts = [split(product.catalog_id) for product in products]
    assert split(products[0].catalog_id) == parts[0]
    assert 0.7 < parts.count("train") / len(parts) < 0.9
    assert {"train", "valid", "test"} == set(parts)


def test_pictures_decode_and_some_are_missing(products):
    missing = [product for product in products if product.picture is None]
    assert 0 < len(missing) < 0.06 * len(products)
    assert all(product.trait is None and product.box is None for product in missing)
    for product in products[:60]:
        if product.picture is not None:
            with Image.open(BytesIO(product.picture)) as picture:
                picture.load()
                assert (picture.format, picture.size) == ("JPEG", (48, 48))


def test_row_for_the_extractor(products):
    for product in products[:20]:
        row = product.to_product()
        assert row.texts["title"] == product.title
        assert ("description" in row.texts) == bool(product.description)
        assert row.pictures == ((product.picture,) if product.picture else ())
        assert (row.gold, row.specs) == (product.gold, product.specs)


def test_chinese_titles_mix_scripts():
    titles = [p.title for p in generate(DemoConfig(num_products=200, language="zh"))]
    assert all(any("\u4e00" <= char <= "\u9fff" for char in title) for title in titles)
    assert any("2023新款" in title for title in titles)
    assert any("T恤" in title for title in titles)


def test_texts_carry_noise():
    listed = list(generate(DemoConfig(num_products=600, with_pictures=False)))
    assert any("&amp;" in product.title for product in listed)
    assert any("&amp;" in product.description for product in listed)
    assert any(product.title.isupper() for product in listed)
    assert any(product.title.islower() for product in listed)
    assert any("Pairs well with" in product.description for product in listed)
    twice = [[s.attribute for s in product.gold if s.source == "title"] for product in listed]
    assert any(names.count("material") == 2 for names in twice)
    assert any(names.count("brand") == 2 for names in twice)


def test_share_of_ambiguous_products(listings):
    assert 0.31 < sum(product.trait is not None for product in listings) / len(listings) < 0.39
