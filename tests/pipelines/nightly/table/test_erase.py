"""Erasure: exactly the ids that are asked for, and with vacuum no copy of them anywhere."""

import json

import pyarrow.parquet as pq
import pytest
from run_job import KILLED, Call
from shop_catalogue import extractions, product, products, quarantine, write_file

from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage
from pipelines.nightly.crash import ERASE_POINTS
from pipelines.nightly.table.erase import erase, read_ids
from pipelines.nightly.table.lock import LockConfig

LOCK = LockConfig(beat_seconds=0.2, stale_seconds=1.0)
GONE, TEXT = "aaa-gone-product", "zyxgonetext red shirt"
ODD = [" 42 ", "42", "a\u2028b", "a\u0085b", "tab\tid", "line\nbreak", "cr\r", "\x0cff"]


def table_of(tmp_path, rows, **config) -> Call:
    write_file(tmp_path / "in" / "a.parquet", rows)
    call = Call((str(tmp_path / "in"),), Storage.of(tmp_path / "out"), config=config)
    call.run()
    return call


def ids_file(tmp_path, content: str, name="ids.txt") -> list[str]:
    (tmp_path / name).write_bytes(content.encode())
    return read_ids(Storage.of(tmp_path / name))


@pytest.mark.parametrize("product_id", [i for i in ODD if "\n" not in i and not i.endswith("\r")])
def test_an_id_of_a_text_file_is_exact(tmp_path, product_id):
    call = table_of(tmp_path, [product(i, product_id=odd) for i, odd in enumerate(ODD)])
    ids = ids_file(tmp_path, f"{product_id}\r\n\n")
    assert ids == [product_id]
    assert erase(call.output, ids, is_vacuumed=False, config=LOCK)["products_erased"] == 1
    assert set(extractions(call.output)["product_id"]) == set(ODD) - {product_id}


def test_any_id_can_be_named_in_json_lines(tmp_path):
    call = table_of(tmp_path, [product(i, product_id=odd) for i, odd in enumerate(ODD)])
    ids = ids_file(tmp_path, "".join(json.dumps(odd) + "\n" for odd in ODD), "ids.jsonl")
    assert ids == ODD
    assert erase(call.output, ids, is_vacuumed=False, config=LOCK)["products_erased"] == len(ODD)
    assert len(extractions(call.output)) == 0


@pytest.mark.parametrize("line", ["p1", "{}", "[1]", "null", "true", '"open'])
def test_a_line_that_is_no_json_string_is_refused(tmp_path, line):
    with pytest.raises(ValueError, match="has a line"):
        ids_file(tmp_path, line, "ids.jsonl")


def test_ids_that_are_not_there_are_a_failure_that_names_them(tmp_path):
    call = table_of(tmp_path, products(10))
    asked = ["p000003", "P000004", "p000005 ", "nowhere"]
    with pytest.raises(RunFailedError, match=r"3 of 4 products .*'P000004', 'nowhere', 'p000005 '"):
        erase(call.output, asked, is_vacuumed=False, config=LOCK)
    assert len(extractions(call.output)) == 9  # what was there is erased all the same
    done = erase(call.output, asked, is_vacuumed=True, config=LOCK, is_missing_allowed=True)
    # the one that is gone by now was erased by this very command
    assert (done["products_erased"], done["products_missing"]) == (0, 3)


@pytest.fixture
def full_table(tmp_path):
    """A product in CSV copies, compacted files, an orphan's staging, quarantine, a torn write."""
    rows = [product(0, product_id=GONE, title=TEXT), *products(40, start=1)]
    call = table_of(tmp_path, [*rows, rows[0]], maintenance={"compact": True, "vacuum_hours": None})
    header = "product_id,title,description,category"
    lines = [f"{row['product_id']},{row['title']},,shirts" for row in [rows[0], *products(5)]]
    (tmp_path / "in" / "b.csv").write_text("\n".join([header, *lines]))
    call.run()
    out = tmp_path / "out"
    for name in ("staging", "plan-0000"):
        (out / "_runs" / "orphan" / name).mkdir(parents=True)
        (out / "_runs" / "orphan" / name / "wave").write_bytes(f"{GONE} {TEXT}".encode())
    (out / "extractions" / "bucket=0" / ".part.parquet.1.tmp").write_bytes(TEXT.encode())
    assert GONE in extractions(call.output)["product_id"].to_list()
    assert GONE in quarantine(call.output)["product_id"].to_list()
    return call


def traces(folder) -> list[str]:
    """Files that name the product or its text, as bytes or in the columns of a Parquet file."""
    found = []
    for path in filter(lambda p: p.is_file(), folder.rglob("*")):
        data = path.read_bytes() + path.name.encode()
        if data[:4] == b"PAR1":
            data += str(pq.read_table(path, partitioning=None).to_pydict()).encode()
        if any(word.encode() in data for word in (GONE, TEXT, "zyxgone")):
            found.append(str(path.relative_to(folder)))
    return found


def test_erase_and_vacuum_leave_no_copy(full_table, tmp_path):
    assert len(traces(tmp_path / "out")) > 5
    summary = erase(full_table.output, [GONE], is_vacuumed=True, config=LOCK)
    assert (summary["products_erased"], summary["products_missing"]) == (1, 0)
    assert traces(tmp_path / "out") == []
    assert len(extractions(full_table.output)) == 41


def _erase_in_call(call: Call) -> None:
    erase(call.output, [GONE], is_vacuumed=True, config=LOCK)


@pytest.mark.parametrize("point", ERASE_POINTS)
def test_a_rerun_finishes_an_erasure_that_was_cut_short(full_table, tmp_path, point):
    assert full_table.run_apart(crash_at=point, task=_erase_in_call) == KILLED
    assert erase(full_table.output, [GONE], is_vacuumed=True, config=LOCK)["products_missing"] == 0
    assert traces(tmp_path / "out") == []
    full_table.run()
    assert not full_table.output.join("_runs", "erase.json").exists()


def test_an_erasure_that_is_repeated_after_its_end_is_no_failure(full_table):
    for erased in (1, 0):
        summary = erase(full_table.output, [GONE], is_vacuumed=True, config=LOCK)
        assert (summary["products_erased"], summary["products_missing"]) == (erased, 0)


def test_nights_go_on_after_an_erasure(full_table, tmp_path):
    erase(full_table.output, [GONE], is_vacuumed=True, config=LOCK)
    write_file(tmp_path / "in" / "a.parquet", products(41))
    (tmp_path / "in" / "b.csv").unlink()
    assert full_table.run()["state"] == "published"
    assert extractions(full_table.output)["product_id"].to_list() == [
        f"p{i:06d}" for i in range(41)
    ]
