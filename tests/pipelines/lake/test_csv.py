"""No record of a CSV file is lost: it is a row or a counted bad one, or the file is named."""

import io
import random

import pytest

from pipelines.lake.csv import CsvError, copy_csv, csv_names, read_csv
from pipelines.lake.storage import Storage


def read(data: bytes, *, max_row_bytes: int = 1_000_000) -> tuple[dict[int, list], list[int]]:
    rows, bad = {}, []
    for part in read_csv(io.BytesIO(data), ["id", "title"], max_row_bytes=max_row_bytes):
        rows |= zip(
            part.numbers, (list(row.values()) for row in part.rows.to_pylist()), strict=True
        )
        bad += part.bad
    return rows, bad


def test_rows_quotes_and_line_ends_within_values():
    data = (
        b'\xef\xbb\xbfid,title,x\r\na,"red, ""x"""\r\n"b","two\r\nlines",\n\nc,5" wide,1\nd,,"end"'
    )
    rows, bad = read(data.replace(b'"red, ""x"""', b'"red, ""x""",'))
    assert rows == {
        2: [b"a", b'red, "x"'],
        3: [b"b", b"two\r\nlines"],
        4: [b"c", b'5" wide'],
        5: [b"d", None],
    }
    assert bad == []


def test_an_open_quote_costs_its_own_line_and_no_other():
    data = b'id,title\na,"red\nb,blue\nc,"green"\nd,"open at the end\ne,x\n'
    rows, bad = read(data)
    assert [row[0] for row in rows.values()] == [b"b", b"c", b"e"]
    assert bad == [2, 5]


@pytest.mark.parametrize("line", [b'x,"a"b', b"x", b"x,1,2,3", b"x,a\rb", b'"x"y,1', b'x,"a" ,b'])
def test_a_bad_line_is_counted(line):
    rows, bad = read(b"id,title\n1,a\n" + line + b"\n2,b\n")
    assert ([row[0] for row in rows.values()], bad) == ([b"1", b"2"], [3])


def test_a_long_row_is_read_and_one_too_long_costs_only_itself():
    long = b"x" * 2_500_000
    data = b"id,title\n1,a\n2," + long + b'\n3,"' + long + b'"\n4,b\n'
    rows, bad = read(data, max_row_bytes=3_000_000)
    assert ([row[0] for row in rows.values()], bad) == ([b"1", b"2", b"3", b"4"], [])
    rows, bad = read(data, max_row_bytes=1_000_000)
    assert ([row[0] for row in rows.values()], bad) == ([b"1", b"4"], [3, 4])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("id,title\na,b\n".encode("utf-16"), "UTF-16"),
        ("id,title\na,b\n".encode("utf-16-le"), "UTF-16"),
        ("id,t\u00eftle\na,b\n".encode("latin-1"), "not UTF-8"),
        (b"id,title,id\na,b,c\n", "column 'id' more than once"),
        (b"", "no header"),
        (b"\n\n", "no header"),
        (b"id,title\ra,b\rc,d\r", "carriage returns"),
        (b'id,"title\na,b\n', "broken quote"),
    ],
)
def test_a_file_that_is_no_csv_is_named_in_one_line(data, message):
    with pytest.raises(CsvError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value)
    with pytest.raises(CsvError, match=message):
        csv_names(io.BytesIO(data))


@pytest.mark.parametrize("seed", range(300))
def test_every_line_of_any_soup_is_accounted_for(seed):
    dice = random.Random(seed)
    lines = [
        bytes(dice.choices(b'ab,"\r ', weights=(8, 8, 4, 2, 0.2, 2), k=dice.randint(1, 12)))
        for _ in range(40)
    ]
    rows, bad = read(b"id,title\n" + b"\n".join(lines) + b"\n")
    spent = sum(sum((value or b"").count(b"\n") for value in row) for row in rows.values())
    blank = sum(not line.strip(b"\r") for line in lines)
    assert len(rows) + len(bad) + spent + blank >= 40
    assert sorted([*rows, *bad]) == list(range(2, len(rows) + len(bad) + 2))


def test_a_copy_has_the_wanted_columns_and_remembers_bad_lines(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'id,other,title\n1,x,a\n2,"x\n')
    copies = [
        copy_csv(
            Storage.of(tmp_path / "a.csv"), Storage.of(tmp_path / "c.parquet"), ["title", "id"]
        )
        for _ in range(2)
    ]
    assert [copy.bad_lines for copy in copies] == [(3,), (3,)]
