from collections import Counter, defaultdict

import pytest

from ulsdram_core.demo import CATEGORY_ATTRIBUTES, TRAITS, DemoConfig, generate
from ulsdram_core.demo.catalog import LEXICONS
from ulsdram_core.demo.lexicon import find_readings


@pytest.fixture(scope="module", params=["en", "zh"])
def by_trait(request):
    config = DemoConfig(
        num_products=4_000,
        language=request.param,
        ambiguous=1.0,
        missing_pictures=0.0,
        with_pictures=False,
    )
    groups = defaultdict(list)
    for product in generate(config):
        groups[product.trait].append(product)
    return LEXICONS[request.param], groups


def title_gold(product, attribute):
    return [s for s in product.gold if s.source == "title" and s.attribute == attribute]


def true_color(product):
    return dict(product.specs)["color"]


def colors_in(text, lexicon):
    """(start, word) of each color word, in order."""
    words = [ways[0] for ways in lexicon.words["color"].values()]
    lower = text.lower()
    return sorted((lower.find(word.lower()), word) for word in words if word.lower() in lower)


def test_every_kind_is_a_solid_share(by_trait):
    _, groups = by_trait
    assert set(groups) == set(TRAITS)
    total = sum(map(len, groups.values()))
    assert all(len(group) / total > 0.1 for group in groups.values())


def test_two_colors_are_even_odds_by_order(by_trait):
    lexicon, groups = by_trait
    is_first = []
    for product in groups["two_colors"]:
        named = colors_in(product.title, lexicon)
        assert len(named) >= 2
        (gold,) = title_gold(product, "color")
        assert gold.value.lower() == true_color(product).lower()
        is_first.append(gold.start == named[0][0])
    assert 0.45 < sum(is_first) / len(is_first) < 0.55


def test_mood_is_gold_only_where_the_product_has_the_color(by_trait):
    lexicon, groups = by_trait
    is_gold = []
    for product in groups["mood_color"]:
        named = [word for _, word in colors_in(product.title, lexicon)]
        has_true = true_color(product) in named
        assert bool(title_gold(product, "color")) == has_true
        is_gold.append(has_true)
    assert 0.45 < sum(is_gold) / len(is_gold) < 0.55


def test_brand_swallows_the_color_half_of_the_time(by_trait):
    lexicon, groups = by_trait
    is_brand = []
    for product in groups["brand_color"]:
        brand = title_gold(product, "brand")[0].value.lower()
        true = true_color(product).lower()
        assert brand == dict(product.specs)["brand"].lower()
        assert true not in brand
        assert all(span.value.lower() == true for span in title_gold(product, "color"))
        is_brand.append(brand not in {noun.lower() for noun in lexicon.noun_brands})
    assert 0.45 < sum(is_brand) / len(is_brand) < 0.55


def test_two_values_are_even_odds_by_order(by_trait):
    _, groups = by_trait
    sides = Counter()
    for product in groups["two_values"]:
        slash = product.title.index("/")
        near = min(
            (s for s in product.gold if s.source == "title"),
            key=lambda s: min(abs(s.end - slash), abs(s.start - slash - 1)),
        )
        sides["first" if near.end <= slash else "second"] += 1
    assert 0.4 < sides["first"] / sides.total() < 0.6


def test_only_the_pictured_garment_is_gold(by_trait):
    lexicon, groups = by_trait
    is_first = []
    for product in groups["other_garment"]:
        (gold,) = title_gold(product, "type")
        assert gold.value.lower() in {word.lower() for word in lexicon.types[product.category]}
        middle = len(product.title) / 2
        is_first.append(gold.start < middle)
        own = set(CATEGORY_ATTRIBUTES[product.category])
        assert {span.attribute for span in product.gold} <= own
    assert 0.42 < sum(is_first) / len(is_first) < 0.58


def test_a_hidden_category_leaves_each_word_two_readings(by_trait):
    lexicon, groups = by_trait
    open_attributes = defaultdict(Counter)
    readings = find_readings(lexicon)
    for product in groups["hidden_category"]:
        assert not title_gold(product, "type")
        for span in product.gold:
            if span.attribute not in ("brand", "color", "usage"):
                word = next(w for w in readings if w.lower() == span.value.lower())
                open_attributes[word][span.attribute] += 1
    assert len(open_attributes) >= 8
    guessed = sum(counts.most_common(1)[0][1] for counts in open_attributes.values())
    assert guessed / sum(counts.total() for counts in open_attributes.values()) < 0.65


def test_descriptions_do_not_give_the_answer_away(by_trait):
    _, groups = by_trait
    for group in groups.values():
        assert not any(span.source == "description" for product in group for span in product.gold)
