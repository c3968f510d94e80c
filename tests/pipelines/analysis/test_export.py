"""Snapshots without Delta: whole, atomic, and what the table says."""

import json
import threading

import polars as pl
import pytest
from run_job import Call
from shop_catalogue import extractions, product, products, write_files

from pipelines.analysis.export import ExportConfig, column_names, export
from pipelines.lake.storage import Storage


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path) -> Storage:
    if request.param == "local":
        return Storage.of(tmp_path)
    server = request.getfixturevalue("s3_server")
    return Storage.of(server.uri(tmp_path.name), server.options)


@pytest.fixture
def call(place, tmp_path) -> Call:
    """A table of 40 products of which 5 vanished."""
    call = Call((str(tmp_path / "in"),), place.join("out"), dict(place.options))
    write_files(tmp_path / "in", products(40))
    call.run()
    write_files(tmp_path / "in", products(35))
    call.run()
    return call


def read(target: Storage, kind: str) -> pl.DataFrame:
    """What latest.json points at."""
    newest = json.loads(target.join("latest.json").read_bytes())["snapshot"]
    folder = target.join(newest, kind)
    options = folder.polars_options or None
    return pl.read_parquet(f"{folder.uri}/*.parquet", storage_options=options)


def test_both_forms_say_what_the_table_says(call, place):
    summary = export(call.output, place.join("plain"), ExportConfig())
    table = extractions(call.output).filter(pl.col("status") != "vanished")
    wide = read(place.join("plain"), "wide").sort("product_id")
    assert wide["product_id"].to_list() == table["product_id"].to_list()
    assert wide.columns[-3:] == ["color", "material", "size"]
    long = read(place.join("plain"), "long")
    values = table.explode("values").unnest("values").select("product_id", "attribute", "value")
    keys = ["product_id", "attribute", "value"]
    assert long.select(keys).sort(keys).equals(values.sort(keys))
    for row in wide.head(5).iter_rows(named=True):
        mine = values.filter(pl.col("product_id") == row["product_id"])
        for attribute in ("color", "material", "size"):
            found = mine.filter(pl.col("attribute") == attribute)["value"].unique().to_list()
            assert sorted(row[attribute] or []) == sorted(found)
    assert (summary["products"], summary["values"]) == (35, len(long))


def test_vanished_and_unsure_values_are_a_choice(call, place):
    everything = ExportConfig(include_vanished=True, min_confidence=0.95)
    summary = export(call.output, place.join("plain"), everything)
    assert (summary["products"], summary["values"]) == (40, 0)


def test_a_reader_sees_whole_snapshots_and_old_ones_go(call, place):
    target, seen, stopped = place.join("plain"), [], threading.Event()
    export(call.output, target, ExportConfig())

    def look():
        while not stopped.is_set():
            seen.append(len(read(target, "wide")))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(3):
        export(call.output, target, ExportConfig(keep=3))
    stopped.set()
    reader.join()
    assert set(seen) == {35}
    export(call.output, target, ExportConfig(keep=2))
    assert len([name for name in target.names() if name.startswith("v")]) == 2


def test_the_local_link_is_followed_by_any_tool(tmp_path):
    write_files(tmp_path / "in", [*products(5), product(9, title="plain")])
    call = Call((str(tmp_path / "in"),), Storage.of(tmp_path / "out"))
    call.run()
    export(call.output, Storage.of(tmp_path / "plain"), ExportConfig())
    assert len(pl.read_parquet(tmp_path / "plain" / "latest" / "wide" / "*.parquet")) == 6


def test_names_of_attributes_that_collide():
    assert column_names(["status", "color"]) == {"color": "color", "status": "status_value"}


def test_no_table(tmp_path):
    with pytest.raises(ValueError, match="found no extractions table"):
        export(Storage.of(tmp_path), Storage.of(tmp_path / "x"), ExportConfig())
