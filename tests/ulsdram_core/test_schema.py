import pytest

from ulsdram_core.reasons import MEANINGS, Reason
from ulsdram_core.schema import GoldSpan, Product


def test_every_reason_has_a_meaning_and_a_lower_case_value():
    assert set(MEANINGS) == set(Reason)
    assert all(reason.value == reason.name.lower() for reason in Reason)
    assert all(meaning.endswith(".") for meaning in MEANINGS.values())


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 3), (4, 2)])
def test_empty_or_negative_gold_spans_are_refused(start, end):
    with pytest.raises(ValueError, match="expected 0 <= start < end"):
        GoldSpan("Color", "blue", start, end)


def test_gold_by_source_and_attribute():
    title = GoldSpan("Color", "blue", 0, 4)
    other = GoldSpan("Fit", "slim", 0, 4, source="description")
    product = Product("1", {"title": "blue"}, gold=(title, other, title))
    assert product.gold_for("description") == (other,)
    assert product.gold_attributes() == ("Color", "Fit")
    assert Product("2", {"title": "blue"}).gold_for("title") == ()
