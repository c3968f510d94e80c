import pytest

from ulsdram_core.mae import MaeError, parse_mae_item
from ulsdram_core.reasons import Reason

ITEM = {
    "title": "Blue Jeans",
    "text": "Soft  cotton",
    "clean_title": "blue jeans",
    "clean_text": "soft cotton",
    "images": ["a/1.jpg", "a/2.jpg"],
    "specs": {"Color": "Blue", "Material": "Cotton"},
    "diffbotUri": "product|3|1",
}


def test_whole_item():
    item = parse_mae_item(ITEM)
    assert item.product_id == "product|3|1"
    assert item.texts == {"title": "Blue Jeans", "description": "Soft  cotton"}
    assert item.pictures == ("a/1.jpg", "a/2.jpg")
    assert item.specs == (("Color", "Blue"), ("Material", "Cotton"))
    assert item.reasons == ()


def test_clean_texts_where_given():
    assert parse_mae_item(ITEM, clean=True).texts["description"] == "soft cotton"
    item = {"title": "Blue", "clean_title": ""}
    assert parse_mae_item(item, clean=True).texts == {"title": "Blue"}


@pytest.mark.parametrize(
    ("item", "reasons"),
    [
        ({}, (Reason.NULL_ID, Reason.EMPTY_TEXT, Reason.NO_PICTURE)),
        (ITEM | {"images": None}, (Reason.NO_PICTURE,)),
        (ITEM | {"images": []}, (Reason.NO_PICTURE,)),
        (ITEM | {"images": {"a": 1}}, (Reason.WRONG_TYPE, Reason.NO_PICTURE)),
        (ITEM | {"images": ["a.jpg", None]}, (Reason.WRONG_TYPE,)),
        (ITEM | {"specs": ["Color"]}, (Reason.WRONG_TYPE,)),
        (ITEM | {"specs": None}, ()),
        (ITEM | {"title": 3}, (Reason.WRONG_TYPE,)),
        (ITEM | {"title": " ", "text": ""}, (Reason.EMPTY_TEXT,)),
        (ITEM | {"diffbotUri": None}, (Reason.NULL_ID,)),
    ],
)
def test_what_an_item_lacks_is_named(item, reasons):
    assert parse_mae_item(item).reasons == reasons


def test_specs_become_pairs():
    specs = {"Size": 10, "Color": ["Blue", "Navy", "Blue"], " ": "x", "Fit": "  ", "Sold": True}
    item = parse_mae_item(ITEM | {"specs": specs})
    assert item.specs == (("Size", "10"), ("Color", "Blue"), ("Color", "Navy"))
    assert item.reasons == (Reason.WRONG_TYPE,)


def test_one_picture_may_be_a_bare_path():
    assert parse_mae_item(ITEM | {"images": "a.jpg"}).pictures == ("a.jpg",)


@pytest.mark.parametrize("item", [None, [], "x", 3])
def test_anything_but_an_object_is_an_error(item):
    with pytest.raises(MaeError, match="expected a JSON object"):
        parse_mae_item(item)
