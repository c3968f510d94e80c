"""Columns are found over all files and rows, so that none goes missing unnoticed."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from pipelines.lake.pictures import PictureAddressConfig
from pipelines.prepare.columns import find_columns
from pipelines.prepare.config import TaggedColumns
from pipelines.prepare.rows import Problem
from pipelines.prepare.shards import find_raw_files
from pipelines.prepare.staging import output_schema
from pipelines.prepare.tagged import read_tagged

ROW = {"title": "Red hat", "specs": {"colour": "red"}}


@pytest.fixture
def read(tmp_path, make_config):
    """All items of a folder `in`, as the shards' tasks would read them."""

    def read_all(**settings) -> list:
        config = make_config("tagged", tmp_path / "in", **settings)
        inputs = find_raw_files(config)
        columns = find_columns(config, inputs)
        read_all.schema = output_schema(config, columns)
        return [item for shard in inputs.shards for item in read_tagged(shard, config, columns)]

    return read_all


@pytest.fixture
def put(tmp_path):
    def put_file(name: str, content: list | str | bytes):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content)
        elif name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(content), path)
        else:
            path.write_text("\n".join(map(json.dumps, content)))

    return put_file


@pytest.mark.parametrize(
    "first", [{}, {"title": "x"}, {"title": "x", "specs": {"a": "x"}}, {"n": 1}]
)
def test_the_first_line_does_not_decide(read, put, tmp_path, jpeg, first):
    put("rows.jsonl", [first, {**ROW, "image": "1.jpg"}, {**ROW, "images": ["1.jpg", "1.jpg"]}])
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.jpg").write_bytes(jpeg)
    _, one, two = read(images=str(tmp_path / "p"))
    assert (one.pictures, two.pictures) == ([jpeg], [jpeg, jpeg])
    assert "images" in read.schema.names


@pytest.mark.parametrize("first", ["", "{\n", "[1]\n", "{}\n"])
def test_the_first_file_does_not_decide(read, put, first):
    put("a.jsonl", first)
    put("b.jsonl", [ROW])
    assert [item.texts for item in read() if not isinstance(item, Problem) and item] == [
        {"title": "Red hat"}
    ]


def test_a_picture_after_thousands_of_lines_is_read(read, put):
    put("rows.jsonl", [ROW] * 1_200 + [{**ROW, "image": "x", "description": "late"}])
    *_, last = read()
    assert last.num_pictures == 1
    [note] = last.notes
    assert (note.reason, note.num_rows) == ("unexpected_column", 0)
    assert "'description'" in note.detail


def test_lists_after_a_single_picture_are_written_as_lists(read, put):
    put("rows.jsonl", [{**ROW, "image": "a"}, {**ROW, "image": ["a", "b"]}])
    one, two = read()
    assert (one.num_pictures, two.num_pictures) == (1, 2)
    assert "images" in read.schema.names


def test_columns_of_any_parquet_file_count(read, put, jpeg):
    rows = [{"title": "Red", "specs": [{"attribute": "c", "value": "red"}]}]
    put("test/a.parquet", rows)
    put("train/a.parquet", [{**rows[0], "image": jpeg, "category": "Hats"}])
    without, with_ = read()
    assert (without.pictures, without.category) == ([], None)
    assert (with_.pictures, with_.category) == ([jpeg], "Hats")


def test_both_picture_columns_are_read(read, put, jpeg):
    specs = [{"attribute": "c", "value": "red"}]
    put("a.parquet", [{"title": "Red", "specs": specs, "image": jpeg, "images": [jpeg, jpeg]}])
    [product] = read()
    assert product.pictures == [jpeg] * 3
    assert read.schema.field("images").type == pa.list_(pa.binary())


def test_pictures_of_hugging_face_are_unwrapped(read, put, jpeg, tmp_path):
    (tmp_path / "1.jpg").write_bytes(jpeg)
    images = [{"bytes": jpeg, "path": "x.jpg"}, {"bytes": None, "path": "1.jpg"}]
    specs = [{"attribute": "c", "value": "red"}]
    put("a.parquet", [{"title": "Red", "specs": specs, "image": image} for image in images])
    assert [product.pictures for product in read(images=str(tmp_path))] == [[jpeg], [jpeg]]


def test_addresses_of_pictures_are_followed_but_not_out(read, put, jpeg, tmp_path):
    put("1.jpg", jpeg)
    (tmp_path / "2.jpg").write_bytes(jpeg)
    absolute = str(tmp_path / "2.jpg")
    addresses = ["1.jpg", absolute, f"file://{absolute}", "../2.jpg", "no://x/1.jpg", "absent.jpg"]
    put("a.jsonl", [{**ROW, "image_uri": address} for address in addresses])
    products = read()
    assert [product.broken_pictures for product in products] == [
        [], *[["refused_address"]] * 4, ["unreachable_picture"]
    ]  # fmt: skip
    allowed = read(pictures=PictureAddressConfig(roots=(str(tmp_path),)))
    assert [len(product.pictures) for product in allowed] == [1, 1, 1, 1, 0, 0]


def test_addresses_in_a_lake(make_config, s3_bucket, jpeg):
    fs, uri, options = s3_bucket
    fs.pipe(f"{uri}/elsewhere/1.jpg", jpeg)
    fs.pipe(f"{uri}/in/2.jpg", jpeg)
    addresses = [f"{uri}/elsewhere/1.jpg", "2.jpg", f"{uri}/none.jpg", "/etc/passwd"]
    lines = [json.dumps({**ROW, "photo": [address]}) for address in addresses]
    fs.pipe(f"{uri}/in/a.jsonl", "\n".join(lines).encode())
    columns = TaggedColumns(image_uri="photo")
    config = make_config("tagged", f"{uri}/in", columns=columns, storage_options=options)
    inputs = find_raw_files(config)
    [shard] = inputs.shards
    products = list(read_tagged(shard, config, find_columns(config, inputs)))
    assert [len(product.pictures) for product in products] == [1, 1, 0, 0]
    assert inputs.ignored.listed == ["2.jpg"]


@pytest.mark.parametrize("packed", [False, True])
def test_csv_is_read(read, put, packed):
    lines = [
        "product_id,title,specs",
        '1,Red hat,"{""colour"": ""red""}"',
        "2,too,many,values",
        '3,"Blue\nhat","[[""colour"", ""blue""]]"',
        "4,no specs,",
        "5,\udcff,{}",
        "6",
    ]
    data = "\n".join(lines).encode("utf-8", "surrogateescape")
    put("a.csv.gz" if packed else "a.csv", gzip.compress(data) if packed else data)
    items = read()
    products = {item.product_id: item for item in items if not isinstance(item, Problem)}
    assert list(products) == ["1", "3"]
    assert [(span.attribute, span.value) for span in products["3"].gold] == [("colour", "Blue")]
    problems = sorted((item.line, item.reason) for item in items if isinstance(item, Problem))
    assert problems == [
        (3, "wrong_columns"),
        (5, "not_labelled"),
        (6, "invalid_text"),
        (7, "wrong_columns"),
    ]


def test_packed_lines_are_read(read, put):
    data = gzip.compress("\n".join([json.dumps(ROW)] * 3).encode())
    put("a.jsonl.gz", data)
    put("b.jsonl.gz", data[:-12])
    items = read()
    assert len([item for item in items if not isinstance(item, Problem)]) >= 3
    assert [item.reason for item in items if isinstance(item, Problem)] == ["unreadable_file"]


def test_columns_in_the_folders_of_a_delta_table_are_read(read, tmp_path):
    rows = pa.table({"title": ["Red hat"], "specs": ['{"c": "red"}'], "category": ["Hats"]})
    write_deltalake(tmp_path / "in", rows, partition_by=["category"])
    [product] = read()
    assert product.category == "Hats"


def test_an_empty_table_is_told(put, make_config, tmp_path):
    put("a.parquet", b"")
    pq.ParquetWriter(tmp_path / "in" / "a.parquet", pa.schema([("title", pa.string())])).close()
    config = make_config("tagged", tmp_path / "in")
    with pytest.raises(ValueError, match=r"no rows to read in --in .*in; .*columns but no rows$"):
        find_columns(config, find_raw_files(config))


def test_a_decimal_key_is_read_as_text(read, put):
    specs = [{"attribute": "c", "value": "red"}]
    put("a.parquet", [{"product_id": Decimal(12), "title": "Red", "specs": specs}])
    assert [product.product_id for product in read()] == ["12"]


def test_one_odd_value_does_not_cost_the_row(read, put):
    put("a.jsonl", [{"title": "Red hat", "specs": {"waterproof": True, "colour": "red"}}])
    [product] = read()
    assert product.specs == [("colour", "red")]
    assert [note.reason for note in product.notes] == ["wrong_type"]
