"""Products tables of every kind: formats, schema drift, duplicates, broken files."""

import random
from datetime import UTC, datetime

import polars as pl
import pytest
from deltalake import write_deltalake

from pipelines.analysis import Catalog, QueryError
from pipelines.lake.catalog import parse_columns
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns

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


def test_all_endings_are_read_side_by_side(tmp_path):
    for name, category in (("a.csv", "csv"), ("b.parquet", "parquet"), ("c.pq", "pq")):
        frame = pl.DataFrame({"product_id": [category], "category": [category]})
        (frame.write_csv if name.endswith("csv") else frame.write_parquet)(tmp_path / name)
    pl.DataFrame({"product_id": ["d"], "category": ["d"]}).write_parquet(tmp_path / "d.parq")
    (tmp_path / "_tmp").mkdir()
    ROWS.write_parquet(tmp_path / "_tmp" / "half.parquet")
    assert categories(tmp_path) == [(name, name) for name in ("csv", "d", "parquet", "pq")]


def test_columns_may_stand_in_the_path(tmp_path):
    for folder, number in (("category=a%20b", 1), ("category=__HIVE_DEFAULT_PARTITION__", 2)):
        (tmp_path / folder).mkdir()
        pl.DataFrame({"product_id": [number]}).write_parquet(tmp_path / folder / "p.parquet")
        frame = pl.DataFrame({"product_id": [number + 2], "category": ["own"]})
        frame.write_parquet(tmp_path / folder / "q.parquet")
    assert categories(tmp_path) == [("1", "a b"), ("2", None), ("3", "own"), ("4", "own")]


def test_columns_of_a_partitioned_delta_table_are_read(tmp_path):
    write_deltalake(str(tmp_path / "d"), ROWS.to_arrow(), partition_by=["category"])
    assert categories(tmp_path / "d") == CATEGORIES


TIMES = ["", "2026-01-01T10:00:00.000000001Z", "2026-01-01T10:00:00.000000002", "soon", None]
NANOSECONDS = [0, 1, 2, 0, None]


@pytest.mark.parametrize("kind", ["csv", "text", "ns", "uint64"])
def test_the_winner_is_that_of_the_nightly_job(tmp_path, kind):
    numbers = pl.Series(
        [None if n is None else 2**63 + 9 * n for n in NANOSECONDS], dtype=pl.UInt64
    )
    column = {"ns": pl.Series(NANOSECONDS).cast(pl.Datetime("ns")), "uint64": numbers}
    frame = pl.DataFrame(
        {
            "product_id": ["x"] * 5,
            "title": list("abcde"),
            "category": list("abcde"),
            "updated_at": column.get(kind, TIMES),
        }
    )
    path = tmp_path / ("p.csv" if kind == "csv" else "p.parquet")
    (frame.write_csv if kind == "csv" else frame.write_parquet)(path)
    assert categories(path) == [("x", "c")]
    assert ProductReader(Storage.of(path)).find(["x"])["x"].texts["title"] == "c"
