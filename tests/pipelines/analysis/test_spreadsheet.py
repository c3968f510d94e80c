"""Cells made inert and given back."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.analysis.spreadsheet import is_dangerous, neutralize, neutralized, restore

CELLS = st.text(alphabet=st.sampled_from("=+-@'\t\r\n a1\uff1d\u3000\u7ea2")) | st.text()


@pytest.mark.parametrize(
    "cell", ["=cmd", "+1", "-1", "@SUM(A1)", "\tx", "\rx", " =1", "\uff1d1", "\u3000=1", "'=1"]
)
def test_dangerous_cells_become_text(cell):
    assert neutralize(cell) == "'" + cell
    assert restore(neutralize(cell)) == cell


@pytest.mark.parametrize("cell", ["", "red", "100%", "1-2", "a=b", "\u7ea2\u8272"])
def test_harmless_cells_stay(cell):
    assert neutralize(cell) == cell


@given(CELLS)
def test_restore_is_the_inverse(cell):
    assert restore(neutralize(cell)) == cell
    assert not is_dangerous(neutralize(cell)) or neutralize(cell).startswith("'")


@pytest.mark.parametrize("cell", ["=cmd", "'quoted'", "-1"])
def test_a_stripped_apostrophe_does_no_harm(cell):
    assert restore(neutralize(cell).removeprefix("'")) == cell


@given(st.lists(CELLS | st.none(), max_size=20))
def test_columns_like_cells(cells):
    frame = pl.LazyFrame({"text": pl.Series(cells, dtype=pl.String), "n": range(len(cells))})
    frame = frame.with_columns(other=pl.col("text"))
    found = neutralized(frame).collect()
    assert found["text"].to_list() == [cell if cell is None else neutralize(cell) for cell in cells]
    assert found["other"].to_list() == found["text"].to_list()
    assert found["n"].to_list() == list(range(len(cells)))
