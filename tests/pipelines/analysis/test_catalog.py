"""Products tables of every kind: formats, schema drift, duplicates, broken files."""

from datetime import UTC, datetime

import polars as pl
import pytest
from deltalake import write_deltalake

from pipelines.analysis import Catalog, QueryError
from pipelines.analysis.catalog import parse_columns
from pipelines.storage import Storage
from pipelines.tables import Columns

ROWS = pl.DataFrame(
    {
        "product_id": ["007", "b", None],
        "category": ["shoes", None, "shirts"],
        "title": ["Red shoe", "Blue", "Nobody's"],
    }
)
CATEGORIES = [("007", "shoes"), ("b", None)]


def categories(path, **columns) -> list[tuple]:
    catalog = Catalog(Storage.of(path), Columns(**columns))
    return sorted(catalog.categories().collect().rows())


def test_parquet_file(tmp_path):
    ROWS.write_parquet(tmp_path / "p.parquet")
    assert categories(tmp_path / "p.parquet") == CATEGORIES


def test_csv_keeps_leading_zeros(tmp_path):
    ROWS.write_csv(tmp_path / "p.csv")
    assert categories(tmp_path / "p.csv") == CATEGORIES


def test_delta(tmp_path):
    write_deltalake(str(tmp_path / "d"), ROWS.to_arrow())
    assert categories(tmp_path / "d") == CATEGORIES


def test_folder_with_drifting_schemas_and_a_broken_file(tmp_path, caplog):
    folder = tmp_path / "products"
    (folder / "day").mkdir(parents=True)
    ROWS.write_parquet(folder / "a.parquet")
    pl.DataFrame({"product_id": [7, 8], "other": ["x", "y"]}).write_parquet(
        folder / "day" / "b.parquet"
    )
    (folder / "c.parquet").write_bytes(b"PAR1 but not really")
    (folder / "_SUCCESS").touch()
    assert categories(folder) == sorted([*CATEGORIES, ("7", None), ("8", None)])
    assert "c.parquet" in caplog.text


def test_first_of_duplicate_ids_wins(tmp_path):
    for name, category in (("a", "first"), ("b", "second")):
        frame = pl.DataFrame({"product_id": ["x"], "category": [category]})
        frame.write_parquet(tmp_path / f"{name}.parquet")
    assert categories(tmp_path) == [("x", "first")]


def test_newest_of_duplicate_ids_wins(tmp_path):
    days = [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 3, 3)]
    pl.DataFrame(
        {"product_id": ["x"] * 4, "category": list("abcd"), "updated_at": [None, *days]}
    ).write_parquet(tmp_path / "p.parquet")
    assert categories(tmp_path / "p.parquet") == [("x", "c")]


def test_specs_in_json_text(tmp_path):
    pl.DataFrame(
        {"product_id": ["x", "y"], "specs": ['[{"attribute": "color", "value": "red"}]', None]}
    ).write_csv(tmp_path / "p.csv")
    found = Catalog(Storage.of(tmp_path / "p.csv")).specs().sort("product_id").collect()
    assert found["specs"].to_list() == [[{"attribute": "color", "value": "red"}], []]


def test_texts_of_some_products(tmp_path):
    ROWS.write_parquet(tmp_path / "p.parquet")
    found = Catalog(Storage.of(tmp_path / "p.parquet")).texts(["b", "unknown"]).collect()
    assert found.to_dicts() == [{"product_id": "b", "title": "Blue", "description": None}]


def test_renamed_columns(tmp_path):
    renamed = ROWS.rename({"product_id": "sku", "category": "kind", "title": "name"})
    renamed.write_parquet(tmp_path / "p.parquet")
    columns = parse_columns(["product_id=sku", "category=kind", "title=name", "bullet=points"])
    catalog = Catalog(Storage.of(tmp_path / "p.parquet"), columns)
    assert sorted(catalog.categories().collect().rows()) == CATEGORIES
    assert columns.sources["bullet"] == "points"


@pytest.mark.parametrize("pair", ["title", "=x", "title="])
def test_wrong_column_mapping(pair):
    with pytest.raises(QueryError, match="NAME=COLUMN"):
        parse_columns([pair])


def test_missing_column_is_named(tmp_path):
    ROWS.drop("category").write_parquet(tmp_path / "p.parquet")
    with pytest.raises(QueryError, match=r"no column 'category'.*--column"):
        categories(tmp_path / "p.parquet")


@pytest.mark.parametrize("content", [None, b"junk"])
def test_nothing_readable(tmp_path, content):
    path = tmp_path / "p.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QueryError, match="found no"):
        categories(path)
