from __future__ import annotations

import json

import pytest

from pipelines.prepare.mae import parse_mae_item, read_mae
from pipelines.prepare.rows import Problem, RowError
from ulsdram_core.schema import GoldSpan

ITEM = {
    "title": "Acme Navy Blue Jeans",
    "text": "Slim jeans &amp; blue stitching",
    "specs": {"Color": "navy blue", "Fit": "slim", "Weight": "3 kg"},
    "images": ["a/1.jpg"],
    "diffbotUri": "item|1",
}


@pytest.fixture
def read(tmp_path, make_config, whole_file, jpeg):
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    for name in ("1", "2", "3"):
        (tmp_path / "pictures" / "a" / f"{name}.jpg").write_bytes(jpeg)
    (tmp_path / "outside.jpg").write_bytes(jpeg)

    def read_text(text: str | bytes, **settings) -> list:
        path = tmp_path / "items.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        config = make_config("mae", tmp_path, images=str(tmp_path / "pictures"), **settings)
        return list(read_mae(whole_file(path), config))

    return read_text


def test_an_item_becomes_a_product(read, jpeg):
    [product] = read(json.dumps([ITEM]))
    assert product.product_id == "item|1"
    assert product.texts == {"title": ITEM["title"], "description": ITEM["text"]}
    assert product.gold == [
        GoldSpan("Color", "Navy Blue", 5, 14),
        GoldSpan("Fit", "Slim", 0, 4, "description"),
    ]
    assert product.outside == [("Weight", "3 kg")]
    assert product.pictures == [jpeg]
    for span in product.gold:
        assert product.texts[span.source][span.start : span.end] == span.value


def test_pictures_never_come_from_outside(read, jpeg):
    names = ["../outside.jpg", "/etc/passwd", "a/9.jpg", "a/1.jpg"]
    [product] = read(json.dumps([{**ITEM, "images": names}]))
    assert product.pictures == [jpeg]
    assert product.num_pictures == 4
    assert product.broken_pictures == [
        *["refused_address"] * 2, "unreachable_picture"
    ]  # fmt: skip


def test_pictures_are_limited(read):
    [product] = read(
        json.dumps([{**ITEM, "images": ["a/1.jpg", "a/2.jpg", "a/3.jpg"]}]), max_pictures=2
    )
    assert (len(product.pictures), product.num_pictures) == (2, 2)


def test_a_product_without_picture_or_uri_is_kept(read):
    products = read(json.dumps([{"title": "Red hat", "specs": {"Color": "red"}}] * 2))
    assert [product.product_id for product in products] == ["items.json#1", "items.json#2"]
    assert [product.pictures for product in products] == [[], []]


def test_broken_items_are_told_one_by_one(read):
    items = [ITEM, 3, {"title": " "}, {**ITEM, "title": "x" * 101}, {"title": "\ud800", "text": 1}]
    product, *problems = read(json.dumps(items), max_chars=100)
    assert product.line == 1
    assert [(problem.line, problem.reason) for problem in problems] == [
        (2, "wrong_type"),
        (3, "empty_text"),
        (4, "text_too_long"),
        (5, "invalid_text"),
    ]


def test_fields_of_another_type_are_left_out_and_noted(read):
    [product] = read(json.dumps([{**ITEM, "images": 7, "specs": ["red"]}]))
    assert product.gold == []
    assert [note.num_rows for note in product.notes] == [0]


@pytest.mark.parametrize(
    "text",
    ["", "[", "3", '"text"', "[" * 100_000, "[1e99999", '{"a"', b"\xff\xfe[", "9" * 5000],
)
def test_unreadable_files_are_one_problem(read, text):
    [problem] = read(text)
    assert isinstance(problem, Problem)
    assert (problem.line, problem.reason, problem.num_rows) == (0, "malformed_json", 0)


def test_large_files_are_not_read(read):
    [problem] = read(json.dumps([ITEM]), max_json_bytes=100)
    assert problem.reason == "file_too_large"


def test_one_object_is_a_list_of_one(read):
    assert len(read(json.dumps(ITEM))) == 1


def test_pictures_without_a_folder_are_counted(tmp_path, make_config, whole_file):
    path = tmp_path / "items.json"
    path.write_text(json.dumps([{**ITEM, "images": ["a/1.jpg", "a/2.jpg"]}]))
    [product] = read_mae(whole_file(path), make_config("mae", tmp_path))
    assert (product.num_pictures, product.broken_pictures) == (2, ["unreachable_picture"] * 2)


PARSED_ITEM = {
    "title": "Blue Jeans",
    "text": "Soft  cotton",
    "clean_title": "blue jeans",
    "clean_text": "soft cotton",
    "images": ["a/1.jpg", "a/2.jpg"],
    "specs": {"Color": "Blue", "Material": "Cotton"},
    "diffbotUri": "product|3|1",
}


def test_whole_item():
    item = parse_mae_item(PARSED_ITEM)
    assert item.product_id == "product|3|1"
    assert item.texts == {"title": "Blue Jeans", "description": "Soft  cotton"}
    assert item.pictures == ("a/1.jpg", "a/2.jpg")
    assert item.specs == (("Color", "Blue"), ("Material", "Cotton"))
    assert not item.is_mistyped


@pytest.mark.parametrize(
    ("item", "is_mistyped"),
    [
        ({}, False),
        (PARSED_ITEM | {"images": None}, False),
        (PARSED_ITEM | {"images": {"a": 1}}, True),
        (PARSED_ITEM | {"images": ["a.jpg", None]}, True),
        (PARSED_ITEM | {"specs": ["Color"]}, True),
        (PARSED_ITEM | {"specs": None}, False),
        (PARSED_ITEM | {"title": 3}, True),
        (PARSED_ITEM | {"title": " ", "text": ""}, False),
        (PARSED_ITEM | {"diffbotUri": None}, False),
    ],
)
def test_another_type_is_noted(item, is_mistyped):
    assert parse_mae_item(item).is_mistyped == is_mistyped


def test_specs_become_pairs():
    specs = {"Size": 10, "Color": ["Blue", "Navy", "Blue"], " ": "x", "Fit": "  ", "Sold": True}
    item = parse_mae_item(PARSED_ITEM | {"specs": specs})
    assert item.specs == (("Size", "10"), ("Color", "Blue"), ("Color", "Navy"))
    assert item.is_mistyped


def test_one_picture_may_be_a_bare_path():
    assert parse_mae_item(PARSED_ITEM | {"images": "a.jpg"}).pictures == ("a.jpg",)


@pytest.mark.parametrize("item", [None, [], "x", 3])
def test_anything_but_an_object_is_an_error(item):
    with pytest.raises(RowError, match="expected a JSON object"):
        parse_mae_item(item)
