"""Buckets and hashes must never change: tables outlive releases."""

import pytest

from pipelines.lake.storage import Storage
from pipelines.lake.tables import (
    EXTRACTIONS_SCHEMA,
    QUARANTINE_SCHEMA,
    Columns,
    bucket_of,
    create_table,
    id_hashes,
    num_buckets_of,
    open_table,
    products_schema,
)


def test_ids_are_hashed_as_ever():
    assert [bucket_of(name, 32) for name in ("a", "p000001", "\u7ea2")] == [7, 12, 3]
    halves = id_hashes(["a", b"a", "b"])
    assert (halves[0] == halves[1]).all()
    assert (halves[0] != halves[2]).all()
    assert int(halves[0, 0] % 32) == bucket_of("a", 32)
    assert id_hashes([]).shape == (0, 2)


def test_tables_know_their_buckets_and_version(tmp_path):
    output = Storage.of(tmp_path)
    assert open_table(output, "extractions") is None
    create_table(output, "extractions", num_buckets=8)
    again = create_table(output, "extractions", num_buckets=16)
    assert num_buckets_of(again) == 8
    assert again.schema().to_arrow() is not None
    assert [f.name for f in again.schema().fields] == EXTRACTIONS_SCHEMA.names
    create_table(output, "quarantine", num_buckets=8)
    found = open_table(output, "quarantine")
    assert [f.name for f in found.schema().fields] == QUARANTINE_SCHEMA.names


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (Columns(image=None, image_uri="url", images=None), ("url",)),
        (Columns(), ("image", "images", "image_uri")),
    ],
)
def test_picture_columns(columns, names):
    assert columns.pictures() == names
    assert set(names) <= set(products_schema(columns).names)
