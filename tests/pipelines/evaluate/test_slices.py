import numpy as np
import polars as pl
import pytest

from pipelines.evaluate.slices import find_members, is_member, numbered_dataset, parse_slices
from pipelines.labelled.table import TableError, open_labelled
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns

SPAN = {"attribute": "brand", "value": "Acme", "start": 0, "end": 4}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Ten rows in two files of several row groups."""
    folder = tmp_path_factory.mktemp("slices")
    (folder / "test").mkdir()
    rows = pl.DataFrame(
        {
            "product_id": [str(number) for number in range(10)],
            "title": ["Acme shoe"] * 10,
            "price": [1.0, 2.0, 3.0, 4.0, None, 6.0, 7.0, 8.0, 9.0, 10.0],
            "image": [b"x", None] * 5,
            "gold": [[SPAN]] * 10,
        }
    )
    rows.head(6).write_parquet(folder / "test" / "0.parquet", row_group_size=4)
    rows.tail(4).write_parquet(folder / "test" / "1.parquet", row_group_size=3)
    return open_labelled(
        Storage.of(folder), "test", columns=Columns(), sources=("title",), uses_pictures=True
    )


def inside(table, expression):
    (packed,) = find_members(parse_slices([f"x={expression}"]), table).values()
    return [row for row, member in enumerate(is_member(packed, np.arange(10))) if member]


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ('col("price") > 8', [8, 9]),
        ('col("image").is_not_null()', [0, 2, 4, 6, 8]),
        ('col("price") > col("price").mean()', [5, 6, 7, 8, 9]),
        ('col("image").is_not_null() & col("price").is_not_null()', [0, 2, 6, 8]),
    ],
)
def test_a_slice_is_settled_over_the_whole_table(table, expression, rows):
    assert inside(table, expression) == rows


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ('col("title")', "gives title: String, expected one boolean"),
        ('col("title") > 5', "cannot be computed"),
        ('col("title").str.contains("(")', "cannot be computed: regex"),
        ('(col("price") > 3).any()', "gives 1 values for 10 rows"),
        ('col("*")', "gives product_id: String, title"),
        ('col("colour") == "red"', "reads column 'colour', expected one of"),
    ],
)
def test_a_wrong_slice_is_refused_in_one_line(table, expression, message):
    with pytest.raises(TableError, match=f"slice 'x' {message}"):
        inside(table, expression)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_rows_keep_their_numbers(table):
    rows = numbered_dataset(table).to_pandas()
    assert list(rows.sort_values("row_number")["product_id"]) == [str(n) for n in range(10)]
