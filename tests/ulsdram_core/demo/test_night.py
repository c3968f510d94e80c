from collections import Counter
from io import BytesIO

import pytest
from PIL import Image

from ulsdram_core.demo import DemoConfig, Fate, generate, second_night

SHARES = {"changed": 0.2, "broken": 0.15, "vanished": 0.1}


def decodes(data):
    try:
        with Image.open(BytesIO(data)) as picture:
            picture.load()
    except OSError:
        return False
    return True


def test_counts_follow_the_shares():
    listed = generate(DemoConfig(num_products=4_000, with_pictures=False))
    fates = Counter(row.fate for row in second_night(listed, vanished=0.05, changed=0.1, broken=0))
    assert 150 < fates[Fate.VANISHED] < 250
    assert 330 < fates[Fate.TITLE_CHANGED] < 470
    assert fates.total() == 4_000


def test_each_fate_does_what_it_says(products):
    rows = list(second_night(products, **SHARES))
    assert [row.product_id for row in rows] == [product.product_id for product in products]
    assert {row.fate for row in rows} == set(Fate)
    for before, row in zip(products, rows, strict=True):
        after = row.product
        if row.fate is Fate.VANISHED:
            assert after is None
            continue
        assert after is not None
        assert (after == before) == (row.fate is Fate.UNCHANGED)
        assert (after.title != before.title) == (row.fate is Fate.TITLE_CHANGED)
        assert (after.picture != before.picture) == row.fate.startswith("picture")
        assert (after.updated_at > before.updated_at) == (row.fate is not Fate.UNCHANGED)
        for span in after.gold:
            text = after.title if span.source == "title" else after.description
            assert text[span.start : span.end] == span.value


def test_broken_pictures_do_not_decode_and_changed_ones_do(products):
    for row in second_night(products, **SHARES):
        if row.fate is Fate.PICTURE_CHANGED:
            assert decodes(row.product.picture)
        elif row.fate.startswith("picture"):
            assert not decodes(row.product.picture)


def test_a_fate_depends_on_the_product_alone(products):
    rows = list(second_night(products, **SHARES))
    assert list(second_night(products[100:150], **SHARES)) == rows[100:150]
    assert [row.fate for row in second_night(products, seed=9, **SHARES)] != [r.fate for r in rows]


@pytest.mark.parametrize("shares", [{"changed": 0.9, "broken": 0.2}, {"vanished": -0.1}])
def test_bad_shares_are_refused(products, shares):
    with pytest.raises(ValueError, match="sum to at most 1"):
        second_night(products, **shares)
