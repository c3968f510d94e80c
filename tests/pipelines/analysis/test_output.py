"""Answers as terminal table, CSV, Parquet and JSON."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from pipelines.analysis import QueryError
from pipelines.analysis.output import format_of, render, write
from pipelines.lake.storage import Storage

FRAME = pl.DataFrame(
    {
        "text": ["plain", "=cmd|' /C calc'!A0", 'quote " and\nline', "\u7ea2\u8272", None],
        "number": [1.5, -2.0, float("nan"), None, 0.0],
        "at": [datetime(2025, 1, 1, tzinfo=UTC)] * 5,
    }
)


@pytest.mark.parametrize("rows", [0, 5])
def test_parquet_and_json_are_exact(tmp_path, rows):
    frame = FRAME.head(rows)
    assert write(frame.lazy(), out=Storage.of(tmp_path / "a.parquet"), kind="parquet") == rows
    assert pl.read_parquet(tmp_path / "a.parquet").equals(frame)
    assert write(frame.lazy(), out=Storage.of(tmp_path / "sub" / "a.json"), kind="json") == rows
    found = json.loads((tmp_path / "sub" / "a.json").read_text(encoding="utf-8"))
    assert [row["text"] for row in found] == frame["text"].to_list()
    assert [row["number"] for row in found] == [1.5, -2.0, None, None, 0.0][:rows]


def test_csv_is_inert_in_a_spreadsheet(tmp_path):
    assert write(FRAME.lazy(), out=Storage.of(tmp_path / "a.csv"), kind="csv") == 5
    found = pl.read_csv(tmp_path / "a.csv")
    assert found["text"].to_list() == ["plain", "'=cmd|' /C calc'!A0", *FRAME["text"][2:]]
    assert found["number"].to_list()[:2] == [1.5, -2.0]


def test_a_failed_answer_leaves_the_old_file(tmp_path):
    out = tmp_path / "a.csv"
    out.write_text("old")
    wrong = FRAME.lazy().select(pl.col("nowhere"))
    with pytest.raises(QueryError, match="nowhere"):
        write(wrong, out=Storage.of(out), kind="csv")
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_nested_columns_do_not_fit_csv(tmp_path):
    nested = pl.LazyFrame({"a": [[1, 2]]})
    with pytest.raises(QueryError, match="nested"):
        write(nested, out=Storage.of(tmp_path / "a.csv"), kind="csv")


def test_without_a_file_it_goes_to_stdout(capfdbinary):
    assert write(FRAME.select("text").head(1).lazy(), out=None, kind="json") == 1
    assert capfdbinary.readouterr().out == b'[\n{"text":"plain"}\n]\n'


def test_terminal_table_is_cut_and_tame():
    frame = pl.DataFrame({"value": ["\x1b[2Jboo", "b", "c"], "share": [0.123456, 0.5, 1.0]})
    text = render(frame.lazy(), rows=2, width=80)
    assert "\x1b" not in text
    assert "?[2Jboo" in text
    assert "0.1235" in text
    assert "and more" in text
    assert "and more" not in render(frame.lazy(), rows=3, width=80)


@pytest.mark.parametrize(
    ("out", "chosen", "expected"),
    [
        (None, None, "table"),
        ("x.csv", None, "csv"),
        ("s3://b/x.PARQUET", None, "parquet"),
        ("x.txt", "json", "json"),
        (None, "csv", "csv"),
    ],
)
def test_format(out, chosen, expected):
    assert format_of(out, chosen) == expected


@pytest.mark.parametrize(
    ("out", "chosen"), [("x.xls", None), ("x", None), (None, "parquet"), ("x.csv", "table")]
)
def test_wrong_format(out, chosen):
    with pytest.raises(QueryError, match="expected"):
        format_of(out, chosen)
