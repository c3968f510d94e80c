"""Products read by id and in batches, whatever the table looks like."""

import polars as pl
import pytest

from pipelines.analysis import QueryError
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns


def test_found_products_equal_the_written_ones(shop):
    reader = ProductReader(Storage.of(shop.catalogue))
    wanted = [product.to_product() for product in shop.products[:7]]
    found = reader.find([product.product_id for product in wanted] + ["nobody"])
    assert [found[product.product_id] for product in wanted] == wanted
    assert len(found) == 7


def test_batches_keep_order_and_limit(shop):
    reader = ProductReader(Storage.of(shop.catalogue))
    batches = list(reader.batches(limit=11, size=4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    ids = [product.product_id for batch in batches for product in batch]
    assert ids == [product.product_id for product in shop.products[:11]]
    assert sum(map(len, reader.batches())) == len(shop.products)


def test_of_equal_ids_the_newest_counts_and_null_ids_none(tmp_path):
    frame = pl.DataFrame(
        {
            "product_id": ["a", "a", None, "b", "b"],
            "title": ["old", "new", "none", "first", "second"],
            "updated_at": ["2024-01-01", "2024-02-01", None, None, None],
        }
    )
    frame.write_csv(tmp_path / "p.csv")
    reader = ProductReader(Storage.of(tmp_path / "p.csv"))
    texts = {key: p.texts["title"] for key, p in reader.find(["a", "b"]).items()}
    assert texts == {"a": "new", "b": "first"}
    assert [p.product_id for batch in reader.batches() for p in batch] == ["a", "b"]
    assert reader.gold() is None


def test_pictures_from_lists_and_files(tmp_path):
    (tmp_path / "one.png").write_bytes(b"1")
    frame = pl.DataFrame(
        {
            "sku": [7],
            "name": ["x"],
            "images": [[b"2", None, b"3"]],
            "image_uri": ["one.png"],
        }
    )
    frame.write_parquet(tmp_path / "p.parquet")
    columns = Columns(product_id="sku", sources={"title": "name"})
    found = ProductReader(Storage.of(tmp_path / "p.parquet"), columns).find(["7"])["7"]
    assert found.pictures == (b"2", b"3", b"1")
    assert (found.category, found.gold, dict(found.texts)) == (None, None, {"title": "x"})


def test_addresses_of_pictures_are_relative_to_their_file(tmp_path):
    for folder in ("kind=a", "kind=b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.png").write_bytes(folder.encode())
        frame = pl.DataFrame({"product_id": [folder], "title": ["x"], "image_uri": ["one.png"]})
        frame.write_parquet(tmp_path / folder / "p.parquet")
    reader = ProductReader(Storage.of(tmp_path), Columns(category="kind"))
    found = reader.find(["kind=a", "kind=b"])
    assert found["kind=b"].pictures == (b"kind=b",)
    assert (found["kind=a"].pictures, found["kind=a"].category) == ((b"kind=a",), "a")


def test_gold_is_that_of_the_newest_row(tmp_path):
    gold = [[{"attribute": name, "value": "x", "start": 0, "end": 1}] for name in ("old", "new")]
    frame = pl.DataFrame(
        {"product_id": ["p"] * 2, "title": ["x"] * 2, "gold": gold, "updated_at": [1, 2]}
    )
    frame.write_parquet(tmp_path / "p.parquet")
    found = ProductReader(Storage.of(tmp_path / "p.parquet")).gold().collect()
    assert found["gold"][0][0]["attribute"] == "new"


def test_gold_that_makes_no_sense_is_left_out(tmp_path):
    spans = [
        {"attribute": "a", "value": "x", "start": 0, "end": 1},
        {"attribute": "a", "value": "x", "start": 2, "end": 1},
        {"attribute": None, "value": "x", "start": 0, "end": 1},
        None,
    ]
    frame = pl.DataFrame({"product_id": ["p"], "title": ["x"], "gold": [spans]})
    frame.write_parquet(tmp_path / "p.parquet")
    gold = ProductReader(Storage.of(tmp_path / "p.parquet")).find(["p"])["p"].gold
    assert [(span.attribute, span.source, span.end) for span in gold] == [("a", "title", 1)]


def test_a_missing_key_column_is_named(tmp_path):
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(QueryError, match="product_id"):
        ProductReader(Storage.of(tmp_path / "p.parquet")).find(["a"])
