from __future__ import annotations

import polars as pl
import pytest

from pipelines.labelled.corrections import Corrections, corrections_from_frame, read_corrections
from pipelines.labelled.decisions import Decision
from pipelines.lake.storage import Storage
from ulsdram_core.schema import GoldSpan

TEXTS = {"title": "Nike Blue Grafitti Maroon Tshirt", "description": "in maroon"}
BLUE = GoldSpan("colour", "Blue", 5, 9)
BRAND = GoldSpan("brand", "Nike", 0, 4)


def table(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(
        rows, schema=["product_id", "attribute", "value", "correct", "right_value"], orient="row"
    ).cast(pl.String)


def applied(*rows: tuple, gold=(BRAND, BLUE)):
    return corrections_from_frame(table(*rows)).apply("1", TEXTS, gold)


def test_no_removes_the_value():
    result = applied(("1", "colour", "blue", "no", None))
    assert result.spans == (BRAND,)
    assert (result.num_applied, result.num_removed, result.num_added) == (1, 1, 0)


def test_right_value_is_found_in_every_text():
    result = applied(("1", "colour", "Blue", "no", "Maroon"))
    assert result.spans == (
        BRAND,
        GoldSpan("colour", "Maroon", 19, 25),
        GoldSpan("colour", "maroon", 3, 9, "description"),
    )
    assert result.outside == ()


def test_right_value_outside_the_text_is_counted():
    result = applied(("1", "colour", "Blue", "no", "Navy"))
    assert result.spans == (BRAND,)
    assert result.outside == (("colour", "Navy"),)


def test_a_right_value_alone_means_no():
    assert applied(("1", "colour", "Blue", None, "Grafitti")).spans == (
        BRAND,
        GoldSpan("colour", "Grafitti", 10, 18),
    )


def test_yes_keeps_and_adds():
    assert applied(("1", "colour", "Blue", "yes", None)).spans == (BRAND, BLUE)
    assert applied(("1", "colour", "Blue", "yes", None), gold=(BRAND,)).spans == (BRAND, BLUE)


@pytest.mark.parametrize(("first", "last", "is_kept"), [("no", "yes", True), ("yes", "no", False)])
def test_later_rows_win(first, last, is_kept):
    spans = applied(("1", "colour", "Blue", first, None), ("1", "colour", "BLUE", last, None)).spans
    assert (BLUE in spans) is is_kept


def test_a_later_no_takes_back_a_right_value():
    spans = applied(
        ("1", "colour", "Blue", "no", "Maroon"), ("1", "colour", "Maroon", "no", None)
    ).spans
    assert spans == (BRAND,)


def test_other_products_and_undecided_rows_change_nothing():
    result = applied(("2", "colour", "Blue", "no", None), ("1", "brand", "Nike", None, None))
    assert result.spans == (BRAND, BLUE)
    assert result.num_applied == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("1", "colour", "Blue", "perhaps", None), "yes or no"),
        (("", "colour", "Blue", "no", None), "lacks product_id"),
        (("1", "colour", "Blue", "yes", "Red"), "answer no"),
        (("1", "colour", "Blue", "no", "Blue"), "answer yes"),
    ],
)
def test_contradictions_name_their_row(row, message):
    with pytest.raises(ValueError, match=f"row 2.*{message}"):
        corrections_from_frame(table(("1", "colour", "Blue", "no", None), row))


def test_only_what_changes_gold_counts_as_applied():
    result = applied(("1", "colour", "Blue", "yes", None), ("1", "brand", "Puma", "no", None))
    assert result.num_applied == 0


@pytest.mark.parametrize("said", [None, "no", "yes"])
def test_a_right_value_without_a_value_is_added(said):
    result = applied(("1", "colour", "", said, "Maroon"), gold=(BRAND,))
    assert [span.value for span in result.spans] == ["Nike", "Maroon", "maroon"]
    assert result.num_applied == 1


def test_a_list_is_no_answer():
    frame = table(("1", "colour", "Blue", "no", None)).with_columns(value=pl.lit(["Blue"]))
    with pytest.raises(ValueError, match=r"column 'value' is List\(String\), expected string"):
        corrections_from_frame(frame)


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="add value, correct"):
        corrections_from_frame(pl.DataFrame({"product_id": ["1"], "attribute": ["a"]}))


@pytest.mark.parametrize("name", ["c.csv", "c.parquet"])
def test_files_keep_ids_as_written(tmp_path, name):
    frame = table(("007", "colour", "Blue", "no", "Maroon")).rename({"right_value": "right value"})
    path = tmp_path / name
    frame.write_csv(path) if name.endswith("csv") else frame.write_parquet(path)
    corrections = read_corrections(Storage.of(path))
    assert corrections.by_product == {"007": (Decision("007", "colour", "Blue", False, "Maroon"),)}
    assert len(corrections) == 1


def test_an_unreadable_file_is_the_users_mistake(tmp_path):
    (tmp_path / "c.parquet").write_bytes(b"not parquet")
    for name in ("c.parquet", "absent.csv"):
        with pytest.raises(ValueError, match=name):
            read_corrections(Storage.of(tmp_path / name))


def test_none_is_a_valid_set():
    assert Corrections().apply("1", TEXTS, (BLUE,)).spans == (BLUE,)
