"""Broken inputs end as documented: every readable row in exactly one table, the rest counted."""

import struct
import time
import zlib
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dictionary_model import DictionarySource
from run_job import small_config
from shop_catalogue import (
    SCHEMA,
    extractions,
    picture,
    product,
    products,
    quarantine,
    write_file,
    write_files,
)

from pipelines.lake.storage import Storage
from pipelines.nightly import night


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return write_files(tmp_path / "in", products(60))


@pytest.fixture
def output(tmp_path: Path) -> Storage:
    return Storage.of(tmp_path / "out")


def bomb() -> bytes:
    """A PNG that declares 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"image": None}, "degraded", "no_picture"),
        ({"image": b""}, "degraded", "no_picture"),
        ({"image": b"not a picture"}, "degraded", "undecodable_picture"),
        ({"image": picture(10)[:200]}, "degraded", "undecodable_picture"),
        ({"image": bomb()}, "degraded", "picture_too_large"),
        ({"image": picture(10, mode="CMYK")}, "ok", None),
        ({"image": picture(10, kind="PNG", mode="P")}, "ok", None),
        ({"image": picture(10, kind="PNG", mode="LA")}, "ok", None),
        ({"title": None}, "ok", None),  # the description is left
        ({"title": None, "description": None}, "quarantined", "empty_text"),
        ({"title": " \n", "description": ""}, "quarantined", "empty_text"),
        ({"title": "red " * 2_500_000}, "quarantined", "text_too_long"),
        ({"title": "red\x00 shirt \U0001f455 \u7ea2\u8272"}, "ok", None),
    ],
)
def test_one_odd_row_among_good_ones(lake, output, run_night, changes, status, reason):
    odd = product(300, **({"description": "made of wool"} | changes))
    write_file(lake / "odd.parquet", [product(299), odd, product(301)])
    summary = run_night(lake)
    table = extractions(output)
    row = table.filter(pl.col("product_id") == "p000300").row(0, named=True)
    assert (row["status"], row["reason"]) == (status, reason)
    assert (table.filter(pl.col("product_id") != "p000300")["status"] == "ok").all()
    assert len(table) == summary["rows_in"] == 63
    assert len(quarantine(output)) == 0
    assert (row["values"] == []) == (status == "quarantined")


def test_invalid_utf8_costs_one_row(lake, output, run_night):
    raw = SCHEMA.set(1, pa.field("title", pa.binary()))
    rows = [product(300, title=b"red \xff\xfe"), product(301, title=b"red shirt")]
    write_file(lake / "odd.parquet", rows, schema=raw)
    run_night(lake)
    table = extractions(output)
    found = table.filter(pl.col("product_id") >= "p000300").select("status", "reason").rows()
    assert found == [("quarantined", "invalid_text"), ("ok", None)]


def test_rows_without_a_usable_id(lake, output, run_night):
    raw = SCHEMA.set(0, pa.field("product_id", pa.binary()))
    ids = [None, b"good", b"\xff\xfe", b"", b"  "]
    rows = [product(i, product_id=product_id) for i, product_id in enumerate(ids)]
    file = write_file(lake / "odd.parquet", rows, schema=raw, group=2)
    summary = run_night(lake)
    assert len(extractions(output)) == 61
    entries = quarantine(output).select("file", "row_group", "row", "num_rows", "reason").rows()
    assert entries == [
        (str(file), 0, 0, 1, "null_id"),
        (str(file), 1, 0, 1, "invalid_text"),
        (str(file), 1, 1, 1, "null_id"),
        (str(file), 2, 0, 1, "null_id"),
    ]
    assert summary["rows_quarantine_table"] == 4


def test_the_newest_duplicate_wins_else_the_first(lake, output, run_night):
    import datetime as dt

    def at(day):
        return dt.datetime(2026, 1, day, tzinfo=dt.UTC)

    rows = [
        product(1, product_id="a", title="red old", updated_at=at(1)),
        product(2, product_id="a", title="blue new", updated_at=at(2)),
        product(3, product_id="a", title="green unknown"),
        product(4, product_id="b", title="black first"),
        product(5, product_id="b", title="green second"),
        product(5, product_id="p000000", title="green third"),
    ]
    file = write_file(lake / "zz.parquet", rows)
    run_night(lake)
    table = extractions(output)
    colors = dict(
        table.select("product_id", pl.col("values").list.first().struct.field("value")).rows()
    )
    assert (colors["a"], colors["b"]) == ("blue", "black")
    assert len(table) == 62
    entries = quarantine(output).select("file", "row", "product_id", "reason").rows()
    expected = [(0, "a"), (2, "a"), (4, "b"), (5, "p000000")]
    assert entries == [(str(file), row, name, "duplicate_id") for row, name in expected]


@pytest.mark.parametrize("position", [0, 19])
def test_corrupt_footer(tmp_path, output, run_night, position):
    lake = write_files(tmp_path / "in", products(100), files=20)
    broken = lake / f"part-{position:03d}.parquet"
    broken.write_bytes(broken.read_bytes()[:-20] + b"x" * 16 + b"PAR1")
    summary = run_night(lake)
    assert (summary["files_unreadable"], summary["rows_in"]) == (1, 95)
    assert len(extractions(output)) == 95
    (entry,) = quarantine(output).rows(named=True)
    assert (entry["file"], entry["row_group"], entry["row"]) == (str(broken), -1, -1)
    assert (entry["reason"], entry["num_rows"]) == ("unreadable_file", None)


def test_zero_byte_file(lake, output, run_night):
    (lake / "empty.parquet").touch()
    assert run_night(lake)["files_unreadable"] == 1
    assert quarantine(output)["reason"].to_list() == ["unreadable_file"]
    assert len(extractions(output)) == 60


def test_broken_page_costs_one_row_group(lake, output, run_night):
    path = lake / "part-001.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(3)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(data))
    summary = run_night(lake)
    assert (summary["rows_in"], summary["row_groups_unreadable"]) == (60, 1)
    (entry,) = quarantine(output).rows(named=True)
    found = (entry["row_group"], entry["row"], entry["num_rows"], entry["reason"])
    assert found == (0, -1, 20, "unreadable_row_group")
    assert len(extractions(output)) == 40


def test_truncated_file(lake, output, run_night):
    path = lake / "part-001.parquet"
    path.write_bytes(path.read_bytes()[:-300])
    assert run_night(lake)["files_unreadable"] == 1
    assert len(extractions(output)) == 40


def test_schema_drift_after_many_files(tmp_path, output, run_night):
    lake = write_files(tmp_path / "in", products(90), files=18)
    wider = SCHEMA.append(pa.field("brand", pa.string()))
    rows = [product(i, brand="acme") for i in range(90, 95)]
    write_file(lake / "part-018.parquet", rows, schema=wider)
    integers = SCHEMA.set(1, pa.field("title", pa.int64()))
    rows = [product(i, title=i) for i in range(95, 100)]
    write_file(lake / "part-019.parquet", rows, schema=integers)
    summary = run_night(lake)
    assert summary["by_reason"] == {"wrong_type": 5}
    table = extractions(output)
    assert len(table) == 100
    wrong = table.filter(pl.col("status") == "quarantined")["product_id"].to_list()
    assert wrong == [f"p{i:06d}" for i in range(95, 100)]


@pytest.mark.parametrize(
    ("kind", "make", "reason"),
    [
        (pa.int64(), int, None),
        (pa.float64(), float, "wrong_type"),
        (pa.large_string(), str, None),
        (pa.dictionary(pa.int32(), pa.string()), str, None),
    ],
)
def test_types_of_the_id_column(lake, output, run_night, kind, make, reason):
    schema = SCHEMA.set(0, pa.field("product_id", kind))
    rows = [product(i, product_id=make(i)) for i in range(5)]
    write_file(lake / "other.parquet", rows, schema=schema)
    summary = run_night(lake)
    assert summary["rows_in"] == 65
    assert len(extractions(output)) == (65 if reason is None else 60)
    assert quarantine(output)["num_rows"].to_list() == ([] if reason is None else [5])
    assert quarantine(output)["reason"].to_list() == ([] if reason is None else [reason])


def test_picture_column_of_a_wrong_type(lake, output, run_night):
    schema = SCHEMA.set(3, pa.field("image", pa.int64()))
    write_file(lake / "odd.parquet", [product(300, image=7)], schema=schema)
    assert run_night(lake)["by_reason"] == {"wrong_type": 1}
    assert extractions(output)["status"].to_list().count("degraded") == 1


def test_pictures_that_cannot_be_reached(tmp_path, output, run_night):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ok.jpg").write_bytes(picture(5))
    lines = ["product_id,title,image_uri", "a,red shirt,ok.jpg", "b,red shirt,missing.jpg"]
    lines += ["c,red shirt,http://127.0.0.1:9/x.jpg", "d,red shirt,"]
    (tmp_path / "in" / "products.csv").write_text("\n".join(lines))
    run_night(tmp_path / "in")
    assert extractions(output)["reason"].to_list() == [
        None,
        "unreachable_picture",
        "refused_address",
        "no_picture",
    ]
    run_night(tmp_path / "in", is_replay=True)
    (tmp_path / "in" / "missing.jpg").write_bytes(picture(6))
    # the one at a private address too: it may have been allowed meanwhile
    assert run_night(tmp_path / "in", is_replay=True)["rows_worked"] == 2
    assert extractions(output)["status"].to_list() == ["ok", "ok", "degraded", "degraded"]


class Later:
    """Stands in for the module `time`, some days ahead."""

    def __init__(self, days: float) -> None:
        self._seconds = days * 86400

    def __getattr__(self, name):
        return getattr(time, name)

    def time(self):
        return time.time() + self._seconds


def test_a_picture_replaced_at_its_address_is_seen_within_the_days_asked_for(
    tmp_path, output, run_night, monkeypatch
):
    (tmp_path / "in").mkdir()
    lines = ["product_id,title,image_uri"]
    for i in range(12):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(picture(5))
        lines.append(f"p{i},red shirt,{i}.jpg")
    (tmp_path / "in" / "products.csv").write_text("\n".join(lines))
    run_night(tmp_path / "in")
    rechecked = small_config(recheck_pictures_days=4)
    monkeypatch.setattr(night, "time", Later(5))
    assert run_night(tmp_path / "in")["rows_worked"] == 0
    assert run_night(tmp_path / "in", config=rechecked)["rows_worked"] == 12
    for i in range(12):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(b"no picture")
    monkeypatch.setattr(night, "time", Later(1))
    worked = run_night(tmp_path / "in", config=rechecked)["rows_worked"]
    assert 0 < worked < 12
    assert extractions(output)["status"].to_list().count("degraded") == worked
    texts = DictionarySource(uses_pictures=False)
    monkeypatch.setattr(night, "time", Later(9))
    other = tmp_path / "texts"
    assert run_night(tmp_path / "in", output=other, model=texts)["rows_worked"] == 12
    changed = run_night(tmp_path / "in", output=other, model=texts, config=rechecked)
    assert changed["rows_worked"] == 0  # a model that sees no picture


def test_one_of_two_pictures_missing_is_told_and_asked_for_again(tmp_path, output, run_night):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(picture(5))
    rows = [{"product_id": "a", "title": "red shirt", "image_uri": ["1.jpg", "2.jpg"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "a.parquet")
    run_night(tmp_path / "in")
    assert extractions(output)["status"].to_list() == ["degraded"]
    assert extractions(output)["reason"].to_list() == ["unreachable_picture"]
    (tmp_path / "in" / "2.jpg").write_bytes(picture(6))
    assert run_night(tmp_path / "in", is_replay=True)["rows_worked"] == 1
    assert extractions(output)["status"].to_list() == ["ok"]


def test_an_open_quote_swallows_no_row(tmp_path, output, run_night):
    lines = ["product_id,title", 'a,"red shirt', "b,blue shirt", 'c,"green shirt"', "d,hat"]
    (tmp_path / "products.csv").write_text("\n".join(lines))
    run_night(tmp_path / "products.csv", model=DictionarySource(uses_pictures=False))
    assert extractions(output)["product_id"].to_list() == ["b", "c", "d"]
    assert quarantine(output)["row"].to_list() == [2]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ("product_id,title\nx,hat\n".encode("utf-16"), "UTF-16"),
        (b"product_id,title,title\nx,hat,hat\n", "'title' more than once"),
    ],
)
def test_a_csv_file_that_is_none_costs_itself_and_is_named(
    tmp_path, output, run_night, data, detail
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "odd.csv").write_bytes(data)
    (tmp_path / "in" / "good.csv").write_text("product_id,title\na,red shirt\n")
    run_night(tmp_path / "in", model=DictionarySource(uses_pictures=False))
    assert extractions(output)["product_id"].to_list() == ["a"]
    (problem,) = quarantine(output).to_dicts()
    assert problem["file"].endswith("odd.csv")
    assert (problem["reason"], detail in problem["detail"]) == ("unreadable_file", True)


def test_broken_csv_lines_are_counted(tmp_path, output, run_night):
    lines = ["product_id,title", "a,red shirt", "b,red,shirt,extra", "c,blue shirt", "d"]
    path = tmp_path / "products.csv"
    path.write_text("\n".join(lines))
    summary = run_night(path, model=DictionarySource(uses_pictures=False))
    assert summary["rows_in"] == 4
    assert extractions(output)["product_id"].to_list() == ["a", "c"]
    entries = quarantine(output).select("row_group", "row", "reason").rows()
    assert entries == [(-1, 3, "wrong_type"), (-1, 5, "wrong_type")]


def test_several_pictures_of_which_one_is_broken(tmp_path, output, run_night):
    schema = pa.schema(
        [("product_id", pa.string()), ("title", pa.string()), ("images", pa.list_(pa.binary()))]
    )
    rows = [
        {"product_id": "a", "title": "red", "images": [picture(0), picture(200)]},
        {"product_id": "b", "title": "red", "images": [picture(0), b"broken"]},
        {"product_id": "c", "title": "red", "images": []},
        {"product_id": "d", "title": "red", "images": None},
        {"product_id": "e", "title": "red", "images": [b"", b"broken"]},
        {"product_id": "f", "title": "red", "images": [b"broken", bomb()]},
    ]
    write_file(tmp_path / "in" / "a.parquet", rows, schema=schema)
    summary = run_night(tmp_path / "in")
    table = extractions(output)
    assert table["status"].to_list() == ["ok", "ok", *["degraded"] * 4]
    reasons = [None, None, "no_picture", "no_picture", "no_picture", "undecodable_picture"]
    assert table["reason"].to_list() == reasons
    assert summary["broken_pictures"] == 5
    assert table["range"].list.first().struct.field("score")[1] > 0


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder.mkdir(), "found no Parquet or CSV file below"),
        (lambda _: None, "found nothing at"),
        (
            lambda folder: write_file(
                folder / "a.parquet", [{"sku": "a"}], schema=pa.schema([("sku", pa.string())])
            ),
            "found columns sku, expected product_id and one of title, description",
        ),
    ],
)
def test_requests_that_are_wrong(tmp_path, run_night, prepare, message):
    prepare(tmp_path / "in")
    with pytest.raises(ValueError, match=message):
        run_night(tmp_path / "in")


def test_poison_rows_that_raise_are_alone_in_quarantine(lake, output, run_night):
    rows = products(100, start=100)
    rows[37] = product(137, title="red RAISE")
    write_file(lake / "more.parquet", rows)
    summary = run_night(lake)
    assert summary["by_reason"] == {"poison_row": 1}
    assert summary["poison_rows"] == 1
    assert summary["worker_failures"] <= 6
    table = extractions(output)
    assert table.filter(pl.col("status") == "quarantined")["product_id"].to_list() == ["p000137"]
    assert len(table) == 160
