"""Odd columns of Parquet files: what they do to ages, hashes and categories."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_job import small_config
from shop_catalogue import SCHEMA, extractions, product, quarantine, write_file

from pipelines.lake.inputs import list_inputs
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.nightly.plan.rows import FileReader, RowSettings


@pytest.fixture
def output(tmp_path):
    return Storage.of(tmp_path / "out")


def opened(path, **settings) -> FileReader:
    (file,) = list_inputs([str(path)], {})
    rows = RowSettings(Columns(), ("title",), uses_pictures=False, **settings)
    return FileReader(Storage.of(path), file, rows)


@pytest.mark.parametrize(
    ("kind", "ages"),
    [
        (pa.timestamp("ns"), [1_700_000_000_000_000_001, 1_700_000_000_000_000_002, None]),
        (pa.timestamp("ns", "UTC"), [1, 999, 0]),
        (pa.uint64(), [2**63 + 1, 2**64 - 1, 5]),
        (pa.string(), ["2026-01-01", "2026-01-02T10:00:00Z", ""]),
        (pa.string(), ["2026-01-01T00:00:00+01:00", "2026-01-01", "soon"]),
        (pa.binary(), [b"2026-01-01", b"2026-01-02", b"\xff"]),
        (pa.date32(), [1, 2, None]),
    ],
)
def test_the_newest_wins_whatever_type_its_age_has(tmp_path, output, run_night, kind, ages):
    titles = ["red old", "blue new", "green other"]
    columns = {"product_id": ["a"] * 3, "title": titles, "updated_at": pa.array(ages, kind)}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in" / "a.parquet")
    summary = run_night(tmp_path / "in")
    assert (summary["rows_in"], summary["row_groups_unreadable"]) == (3, 0)
    assert quarantine(output)["reason"].to_list() == ["duplicate_id"] * 2
    assert extractions(output)["values"][0][0]["value"] == "blue"


def test_an_age_may_stand_in_the_path(tmp_path, output, run_night):
    schema = pa.schema([("product_id", pa.string()), ("title", pa.string())])
    for day, title in (("2026-01-02", "red"), ("2026-01-03", "blue"), ("2026-01-01", "green")):
        row = {"product_id": "a", "title": title}
        write_file(tmp_path / "in" / f"updated_at={day}" / "a.parquet", [row], schema=schema)
    run_night(tmp_path / "in")
    assert extractions(output)["values"][0][0]["value"] == "blue"


@pytest.mark.parametrize("statistics", [True, False])
def test_a_null_in_the_trusted_column_is_not_trusted(tmp_path, run_night, statistics):
    config = small_config(trusted_column="price")

    def write(rows):
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        path = tmp_path / "in" / "a.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path, row_group_size=3, write_statistics=statistics)

    rows = [product(i, price=None if i in (1, 2) else float(i)) for i in range(6)]
    write(rows)
    run_night(tmp_path / "in", config=config)
    rows[1] = product(1, price=None, title="green wool hat")  # changed, its cell is still null
    rows[4] = product(4, title="green wool hat")  # its cell says that nothing changed
    write(rows)
    assert run_night(tmp_path / "in", config=config)["rows_worked"] == 1
    write([*rows[:2], product(2), *rows[3:]])  # null no more
    assert run_night(tmp_path / "in", config=config)["rows_worked"] == 1


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7, -1, None], pa.int32()),
        pa.array([7, -1, None], pa.int64()).dictionary_encode(),
        pa.array(["7", "-1", None]),
    ],
)
def test_integer_categories_are_read_as_their_text(tmp_path, column):
    table = pa.table({"product_id": ["a", "b", "c"], "title": ["x"] * 3, "category": column})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    with opened(path) as reader:
        (raw,) = reader.take(0, np.arange(3))
    assert raw.categories == [b"7", b"-1", None]
    pq.write_table(table.set_column(2, "category", pa.array(["7", "-1", None])), path)
    with opened(path) as reader:
        (again,) = reader.take(0, np.arange(3))
    assert (again.hashes == raw.hashes).all()
    assert len(np.unique(raw.hashes, axis=0)) == 3


def test_a_changed_integer_category_is_worked_again(tmp_path, run_night):
    for night, category in ((1, 7), (2, 8)):
        frame = pl.DataFrame({"product_id": ["a"], "title": ["red"], "category": [category]})
        (tmp_path / "in").mkdir(exist_ok=True)
        frame.write_parquet(tmp_path / "in" / "a.parquet")
        assert run_night(tmp_path / "in")["rows_worked"] == 1, night


def test_views_of_text_and_bytes_are_read(tmp_path):
    columns = {
        "product_id": pa.array(["a", "b", "c"], pa.string_view()),
        "title": pa.array(["red", None, "blue"], pa.string_view()),
        "category": pa.array([b"x", b"y", b"z"], pa.binary_view()),
        "images": pa.array([[b"1"], [], [b"2", b"3"]], pa.list_(pa.binary())),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with opened(tmp_path / "a.parquet") as reader:
        (raw,) = reader.take(0, np.array([1, 2]))
    assert (raw.ids, raw.texts) == ([b"b", b"c"], [(None,), (b"blue",)])
