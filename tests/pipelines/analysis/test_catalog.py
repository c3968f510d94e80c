"""Products tables of every kind: formats, schema drift, duplicates, broken files."""

import random
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
    found, streamed = (
        sorted(catalog.categories().collect(engine=engine).rows(), key=str)
        for engine in ("in-memory", "streaming")
    )
    assert found == streamed
    return found


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
    assert categories(folder) == sorted([*CATEGORIES, ("7", None), ("8", None)], key=str)
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
    assert sorted(catalog.categories().collect().rows(), key=str) == CATEGORIES
    assert columns.sources["bullet"] == "points"


@pytest.mark.parametrize("dated", [False, True])
def test_many_duplicates(tmp_path, dated):
    """The winner is the newest, else the first in (file, row) order, at a size that is split up."""
    rng = random.Random(3)
    rows = [(f"p{rng.randrange(4000)}", str(n), rng.randrange(5) or None) for n in range(20_000)]
    for part in range(4):
        frame = pl.DataFrame(
            rows[part * 5000 : (part + 1) * 5000],
            schema={"product_id": pl.String, "category": pl.String, "updated_at": pl.Int64},
            orient="row",
        )
        stamp = pl.from_epoch("updated_at", time_unit="d").cast(pl.Datetime("us", "UTC"))
        frame = frame.with_columns(updated_at=stamp) if dated else frame.drop("updated_at")
        frame.write_parquet(tmp_path / f"{part}.parquet", row_group_size=700)
    winners: dict[str, tuple[int, str]] = {}
    for product_id, category, day in rows:
        best = winners.get(product_id)
        if best is None or (dated and (day or 0) > best[0]):
            winners[product_id] = (day or 0, category)
    expected = [(product_id, category) for product_id, (_, category) in winners.items()]
    assert categories(tmp_path) == sorted(expected, key=str)


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
