import logging
from dataclasses import replace

import polars as pl
import pytest

from pipelines.labelled.corrections import COLUMNS, corrections_from_frame
from pipelines.labelled.table import (
    TableError,
    check_texts,
    correction_counts,
    gold_attributes,
    open_labelled,
    warn_of_no_pictures,
)
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns

SPAN = {"attribute": "brand", "value": "Acme", "start": 0, "end": 4}
OFFSETS = {"start": pl.Int32, "end": pl.Int32}
ADDRESS = "s3://lake/1.jpg"


def opened(folder, *, columns=None, **data):
    (folder / "train").mkdir()
    rows = {"product_id": ["1"], "title": ["Acme shoe"], "gold": [[SPAN]], **data}
    pl.DataFrame(rows).write_parquet(folder / "train" / "0.parquet")
    return open_labelled(
        Storage.of(folder),
        "train",
        columns=columns or Columns(),
        sources=("title",),
        uses_pictures=True,
    )


@pytest.mark.parametrize(
    ("gold", "found"),
    [
        ("[]", "large_string"),
        (["brand"], "list"),
        ([{"attribute": "brand", "start": 0, "end": 4}], "list"),
        ([{**SPAN, "start": "0"}], "list"),
    ],
)
def test_gold_of_another_type_is_refused(tmp_path, gold, found):
    with pytest.raises(TableError, match=rf"column 'gold' is .*{found}.*expected list<struct"):
        opened(tmp_path, gold=[gold])


@pytest.mark.parametrize(
    ("columns", "data", "message"),
    [
        ({"image": "foto"}, {}, "no column 'foto'"),
        ({"category": "kind"}, {}, "no column 'kind'"),
        ({}, {"image": [ADDRESS]}, "addresses of pictures.*prepare.py tagged embeds pictures"),
        ({}, {"images": [[ADDRESS]]}, "addresses of pictures"),
        ({}, {"image_uri": [ADDRESS]}, "addresses of pictures"),
        ({"image": "image_uri"}, {"image_uri": [ADDRESS]}, "addresses of pictures"),
        ({}, {"image": [{"bytes": b"x"}]}, "no pictures"),
    ],
)
def test_a_wrong_picture_or_category_column_is_refused(tmp_path, columns, data, message):
    with pytest.raises(TableError, match=message):
        opened(tmp_path, columns=Columns(**columns), **data)


def test_addresses_beside_embedded_pictures_are_left_alone(tmp_path):
    table = opened(tmp_path, image=[b"x"], image_uri=[ADDRESS])
    assert table.picture_columns == ("image",)


@pytest.mark.parametrize(
    ("data", "is_told"),
    [
        ({}, True),
        ({"image": [None]}, True),
        ({"images": [[]]}, True),
        ({"image": [b"x"]}, False),
        ({"images": [[b"x"]]}, False),
    ],
)
def test_a_table_without_pictures_is_told(tmp_path, caplog, data, is_told):
    if "images" in data:
        data = {"images": pl.Series(data["images"], dtype=pl.List(pl.Binary))}
    with caplog.at_level(logging.WARNING):
        warn_of_no_pictures(opened(tmp_path, **data))
    assert ("holds no pictures" in caplog.text) is is_told


@pytest.mark.parametrize(
    ("gold", "is_broken"),
    [
        ([SPAN], False),
        ([], False),
        ([SPAN, None], True),
        ([{**SPAN, "value": None}], True),
        ([{**SPAN, "start": -1}], True),
        ([{**SPAN, "start": 4}], True),
    ],
)
def test_gold_that_is_nowhere_is_refused(tmp_path, gold, is_broken):
    kind = pl.List(pl.Struct(dict.fromkeys(("attribute", "value"), pl.String) | OFFSETS))
    table = opened(tmp_path, gold=pl.Series([gold], dtype=kind))
    if not is_broken:
        check_texts(table)
        return
    with pytest.raises(TableError, match="1 rows with broken"):
        check_texts(table)


def test_attributes_of_gold(tmp_path):
    assert gold_attributes(opened(tmp_path)) == ["brand"]


def test_corrections_are_counted(tmp_path):
    rows = [
        ("1", "brand", "Acme", "no", ""),
        ("1", "colour", "Red", "no", ""),
        ("1", "type", "Boot", "yes", ""),
        ("9", "brand", "Acme", "no", ""),
    ]
    corrections = corrections_from_frame(pl.DataFrame(rows, schema=COLUMNS, orient="row"))
    table = replace(opened(tmp_path), corrections=corrections)
    assert correction_counts([table]) == {
        "given": 4,
        "matched": 3,
        "unmatched": 1,
        "unmatched_ids": ["9"],
        "applied": 1,
        "outside_text": 1,
    }


def test_specs_are_read_as_closed_values(tmp_path):
    pairs = [("colour", "Red"), ("fit", None), (None, "Slim")]
    specs = [{"attribute": attribute, "value": value} for attribute, value in pairs]
    table = opened(tmp_path, specs=[[*specs, None]])
    [product] = table.products(next(table.batches(10)))
    assert product.specs == (("colour", "Red"),)


@pytest.mark.parametrize(
    ("columns", "message"),
    [({}, "'specs' is .*string, expected"), ({"specs": "facts"}, "no column 'facts'")],
)
def test_specs_of_another_type_or_place_are_refused(tmp_path, columns, message):
    with pytest.raises(TableError, match=message):
        opened(tmp_path, columns=Columns(**columns), specs=["colour: Red"])


def test_a_column_that_is_named_away_is_no_specs(tmp_path):
    table = opened(tmp_path, columns=Columns(specs=None), specs=["colour: Red"])
    [product] = table.products(next(table.batches(10)))
    assert product.specs == ()
