"""Delta tables as input: deleted rows, features that change what a file means, one version."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta_tables import change_protocol, hide_rows
from deltalake import DeltaTable, write_deltalake
from shop_catalogue import SCHEMA, extractions, product, products, quarantine

from pipelines.lake.inputs import list_inputs
from pipelines.lake.storage import Storage


@pytest.fixture
def table(tmp_path):
    rows = pa.Table.from_pylist(products(10), schema=SCHEMA)
    write_deltalake(tmp_path / "in", rows)
    return tmp_path / "in"


@pytest.fixture
def output(tmp_path):
    return Storage.of(tmp_path / "out")


def test_rows_under_a_deletion_vector_are_gone(table, output, run_night):
    change_protocol(table, ["deletionVectors"])
    assert run_night(table)["rows_in"] == 10
    hide_rows(table, [1, 3, 9])
    summary = run_night(table)
    assert (summary["rows_in"], summary["rows_vanished"], summary["rows_worked"]) == (7, 3, 0)
    gone = extractions(output).filter(pl.col("status") == "vanished")["product_id"].to_list()
    assert gone == ["p000001", "p000003", "p000009"]


def test_deleted_rows_of_a_broken_file_do_not_count(table, output, run_night):
    change_protocol(table, ["deletionVectors"])
    path = table / hide_rows(table, [1, 3])
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(data))
    summary = run_night(table)
    assert (summary["rows_in"], summary["row_groups_unreadable"]) == (8, 1)
    assert quarantine(output)["num_rows"].to_list() == [8]


@pytest.mark.parametrize("features", [["timestampNtz"], ["v2Checkpoint", "columnMapping"]])
def test_features_that_change_nothing_for_a_reader(table, features):
    change_protocol(table, features)
    assert len(list_inputs([str(table)], {})) == 1


def test_renamed_columns_are_refused(table):
    change_protocol(table, ["columnMapping"], **{"delta.columnMapping.mode": "name"})
    with pytest.raises(ValueError, match=r"olumn mapping.*write a copy of the table"):
        list_inputs([str(table)], {})


def test_columns_that_were_really_renamed_are_refused(table):
    log = table / "_delta_log" / f"{0:020}.json"
    change_protocol(table, ["columnMapping"], **{"delta.columnMapping.mode": "name"})
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for entry in entries:
        if "metaData" in entry:
            schema = json.loads(entry["metaData"]["schemaString"])
            _map_fields(schema["fields"])
            entry["metaData"]["schemaString"] = json.dumps(schema)
    log.write_text("\n".join(map(json.dumps, entries)))
    with pytest.raises(ValueError, match=r"column mapping \(name\).*write a copy of the table"):
        list_inputs([str(table)], {})


def _map_fields(fields) -> None:
    for i, field in enumerate(fields):
        field["metadata"] = {
            "delta.columnMapping.id": i + 1,
            "delta.columnMapping.physicalName": field["name"],
        }
        kind = field["type"]
        element = kind.get("elementType") if isinstance(kind, dict) else None
        if isinstance(element, dict) and "fields" in element:
            _map_fields(element["fields"])


@pytest.mark.parametrize("feature", ["fancyNew", "variantType"])
def test_unknown_reader_features_are_refused(table, feature):
    change_protocol(table, [feature])
    with pytest.raises(ValueError, match=f"{feature}.*write a copy of the table"):
        list_inputs([str(table)], {})


def test_files_that_were_vacuumed_since_the_listing_are_listed_again(
    table, output, run_night, monkeypatch
):
    from pipelines.nightly import night

    listed, calls = night.list_inputs, []

    def list_and_vacuum(*arguments):
        found = listed(*arguments)
        calls.append(found)
        if len(calls) == 2:  # the first listing only checks the request
            rows = pa.Table.from_pylist([product(77)], schema=SCHEMA)
            write_deltalake(table, rows, mode="overwrite")
            DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
        return found

    monkeypatch.setattr(night, "list_inputs", list_and_vacuum)
    assert run_night(table)["rows_in"] == 1
    assert extractions(output)["product_id"].to_list() == ["p000077"]
