"""The queue out, a reviewer's spreadsheet in between, the corrections table in."""

import csv
import io

import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import analysis as a
from pipelines.analysis.review import (
    CORRECTIONS_SCHEMA,
    IDENTITY,
    QUEUE_COLUMNS,
    add_context,
    decode_key,
    encode_key,
    export_queue,
    least_certain,
    merge_decisions,
    parse_reviewed,
    read_corrections_table,
    read_reviewed,
    snippet,
    write_corrections_table,
)
from pipelines.labelled.corrections import read_corrections
from pipelines.labelled.decisions import Decision, ReviewError
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, EXTRACTIONS_SCHEMA, create_table

# (product, attribute, value, start, confidence); the value stands at `start` in TITLES
VALUES = [
    ("007", "color", "red", 5, 0.25),
    ("007", "color", "red", 24, 0.5),
    ("007", "size", "XL", 9, 0.125),
    ("=id", "color", "=cmd|'/C calc'", 0, 0.0625),
    ("b", "brand", "Acme", 0, 0.75),
    ("b", "color", "blue", 5, 0.375),
]
TITLES = {"007": "Some red XL shirt, so a red one", "=id": "=cmd|'/C calc' lamp", "b": "Acme blue"}


@pytest.fixture
def table(tmp_path):
    folder = Storage.of(tmp_path / "t")
    create_table(folder, EXTRACTIONS, num_buckets=1)
    rows = [
        {
            "product_id": product_id,
            "bucket": 0,
            "status": "ok",
            "values": [
                {
                    "attribute": attribute,
                    "value": value,
                    "source": "title",
                    "start": start,
                    "end": start + len(value),
                    "confidence": confidence,
                }
                for owner, attribute, value, start, confidence in VALUES
                if owner == product_id
            ],
            "schema_version": 1,
        }
        for product_id in TITLES
    ]
    data = pa.Table.from_pylist(rows, EXTRACTIONS_SCHEMA)
    write_deltalake(folder.join(EXTRACTIONS).uri, data, mode="append")
    products = tmp_path / "products.parquet"
    pl.DataFrame({"product_id": list(TITLES), "title": list(TITLES.values())}).write_parquet(
        products
    )
    return a.table(folder.uri, products=products)


def identities(frame: pl.DataFrame) -> list[tuple]:
    return frame.select(IDENTITY).rows()


def test_least_certain_comes_first_and_once(table):
    expected = sorted({row[:3]: row[4] for row in reversed(VALUES)}.items(), key=lambda i: i[1])
    assert identities(least_certain(table)) == [identity for identity, _ in expected]
    assert identities(least_certain(table, limit=2)) == [row for row, _ in expected[:2]]
    assert least_certain(table, threshold=0.25).height == 2


def test_one_attribute_cannot_fill_the_queue(table):
    found = least_certain(table, per_attribute=1)
    assert sorted(found["attribute"]) == ["brand", "color", "size"]
    assert found.filter(attribute="color")["confidence"].item() == 0.0625


def test_decided_values_are_left_out(table):
    decided = merge_decisions([Decision("007", "size", "XL", is_correct=True)])
    assert ("007", "size", "XL") not in identities(least_certain(table, decided=decided))


def test_export_is_inert_and_shows_context(table, tmp_path):
    out = Storage.of(tmp_path / "queue.csv")
    assert export_queue(add_context(least_certain(table), table.catalog), out) == 5
    data = out.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert tuple(rows[0]) == QUEUE_COLUMNS
    assert rows[0]["value"] == "'=cmd|'/C calc'"
    assert rows[0]["product_id"] == "'=id"
    assert rows[1]["context"] == "Some red [[XL]] shirt, so a red one"
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())


@pytest.mark.parametrize(
    ("text", "start", "end", "expected"),
    [
        ("red shirt", 0, 3, "[[red]] shirt"),
        ("a\nred\tone", 2, 5, "a [[red]] one"),
        ("x" * 50 + "red" + "y" * 50, 50, 53, "..." + "x" * 40 + "[[red]]" + "y" * 40 + "..."),
        ("blue shirt", 0, 3, ""),
        ("red", 90, 93, ""),
        (None, 0, 3, ""),
    ],
)
def test_snippet(text, start, end, expected):
    assert snippet(text, "red", start=start, end=end) == expected


def fill(queue: str, answers: dict[tuple, tuple[str, str]], delimiter: str = ",") -> str:
    """What a spreadsheet saves after a reviewer worked: it also turned the id 007 into 7."""
    buffer = io.StringIO()
    rows = list(csv.DictReader(io.StringIO(queue, newline="")))
    writer = csv.DictWriter(buffer, QUEUE_COLUMNS, delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        answer = answers.get(decode_key(row["key"]), ("", ""))
        row |= {"correct": answer[0], "right_value": answer[1]}
        writer.writerow(
            row | {"product_id": "7" if row["product_id"] == "007" else row["product_id"]}
        )
    return buffer.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_round_trip_to_what_training_reads(table, tmp_path, delimiter):
    queue, reviewed, out = (Storage.of(tmp_path / n) for n in ("q.csv", "r.csv", "c.parquet"))
    export_queue(add_context(least_certain(table), table.catalog), queue)
    answers = {
        ("007", "size", "XL"): ("Yes", ""),
        ("=id", "color", "=cmd|'/C calc'"): ("no", ""),
        ("b", "color", "blue"): ("", "'=dark"),
    }
    text = fill(queue.read_bytes().decode("utf-8-sig"), answers, delimiter)
    reviewed.write_bytes(text.encode("utf-8-sig"))
    found = read_reviewed(reviewed)
    assert (found.num_undecided, found.num_restored) == (2, 2)
    write_corrections_table(merge_decisions(found.decisions), out)
    assert pl.read_parquet(out.uri).rows() == [
        ("007", "size", "XL", True, None),
        ("=id", "color", "=cmd|'/C calc'", False, None),
        ("b", "color", "blue", False, "=dark"),
    ]
    assert len(read_corrections(out)) == 3


ROW = "p,color,red"
HEADER = "product_id,attribute,value,correct?,right value"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("yes,", Decision("p", "color", "red", True)),
        ("\u662f,", Decision("p", "color", "red", True)),
        ("1,red", Decision("p", "color", "red", True)),
        (",red", Decision("p", "color", "red", True)),
        ("N,", Decision("p", "color", "red", False)),
        ("no,pink", Decision("p", "color", "red", False, "pink")),
        (",pink", Decision("p", "color", "red", False, "pink")),
        (" , ", None),
    ],
)
def test_answers(cells, expected):
    found = parse_reviewed(f"{HEADER}\n{ROW},{cells}\n")
    assert found.decisions == (() if expected is None else (expected,))
    assert found.num_undecided == (expected is None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column product_id"),
        ("", "no column"),
        (f"{HEADER}\n{ROW},maybe,\n", "row 2 has correct='maybe'"),
        (f"{HEADER}\n{ROW},yes,pink\n", "is correct and 'pink' is right"),
        (f"{HEADER}\n{ROW},no,red\n", "wrong and right"),
        (f"{HEADER}\n,color,red,yes,\n", "lacks product_id"),
        (f"{HEADER},key\n{ROW},yes,,k.zzz\n", "row 2: found key"),
        (f"{HEADER},key\n{ROW},yes,,k.WyJhIl0\n", "row 2: found key"),
    ],
)
def test_wrong_files(text, message):
    with pytest.raises(ReviewError, match=message):
        parse_reviewed(text)


@pytest.mark.parametrize(
    "content", [None, b"\xd6\xd0,", HEADER.encode() + b'\np,c,"' + b"x" * 200_000]
)
def test_unreadable_files(tmp_path, content):
    path = tmp_path / "r.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReviewError, match="found"):
        read_reviewed(Storage.of(path))


@settings(max_examples=200)
@given(st.tuples(st.text(), st.text(), st.text()))
def test_key_holds_any_identity(identity):
    key = encode_key(*identity)
    assert decode_key(key) == identity
    assert key.isascii()
    assert "," not in key


def test_new_decisions_override_known_ones(tmp_path):
    known = merge_decisions(
        [Decision("p", "color", "red", True), Decision("p", "size", "XL", False, "L")]
    )
    out = Storage.of(tmp_path / "c.parquet")
    write_corrections_table(known, out)
    merged = merge_decisions(
        [Decision("p", "color", "red", False, "pink")] * 2, known=read_corrections_table(out)
    )
    assert merged.rows() == [
        ("p", "color", "red", False, "pink"),
        ("p", "size", "XL", False, "L"),
    ]
    assert dict(merged.schema) == CORRECTIONS_SCHEMA


def test_contradicting_reviewers_are_refused():
    with pytest.raises(ReviewError, match="two different decisions"):
        merge_decisions([Decision("p", "a", "v", True), Decision("p", "a", "v", False)])


@pytest.mark.parametrize("content", [None, b"junk"])
def test_no_corrections_table(tmp_path, content):
    if content is not None:
        (tmp_path / "c.parquet").write_bytes(content)
    with pytest.raises(ReviewError, match="no corrections table"):
        read_corrections_table(Storage.of(tmp_path / "c.parquet"))
