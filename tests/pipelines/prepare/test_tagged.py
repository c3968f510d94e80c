from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare.columns import check_schemas, resolve_columns
from pipelines.prepare.config import TaggedColumns
from pipelines.prepare.rows import Problem, RowError
from pipelines.prepare.shards import RawFile, Shard
from pipelines.prepare.table_rows import parse_json_line
from pipelines.prepare.tagged import match_target_scores, read_tagged
from ulsdram_core.schema import GoldSpan

SPECS = [{"attribute": "colour", "value": "red"}, {"attribute": "fit", "value": "slim"}]


@pytest.fixture
def read(tmp_path, make_config):
    def read_rows(rows: list[dict], *, as_json: bool = False, **settings) -> list:
        config = make_config("tagged", tmp_path, **settings)
        columns = resolve_columns(config, rows[0], where="rows")
        if as_json:
            path = tmp_path / "rows.jsonl"
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            path = tmp_path / "rows.parquet"
            pq.write_table(pa.Table.from_pylist(rows), path)
        file = RawFile(path.name, str(path), path.stat().st_size, None)
        shard = Shard(0, file, 0, path.stat().st_size)
        return list(read_tagged(shard, config, columns))

    return read_rows


@pytest.mark.parametrize("as_json", [False, True])
def test_specs_become_gold(read, as_json):
    row = {"product_id": 7, "title": "Red hat, red band", "specs": SPECS, "category": "Hats"}
    [product] = read([row], as_json=as_json)
    assert (product.product_id, product.category) == ("7", "Hats")
    assert product.gold == [GoldSpan("colour", "Red", 0, 3), GoldSpan("colour", "red", 9, 12)]
    assert product.outside == [("fit", "slim")]


def test_gold_is_kept_as_labelled(read):
    gold = [{"attribute": "colour", "value": "Red", "start": 0, "end": 3}]
    [product] = read([{"title": "Red hat, red band", "specs": SPECS, "gold": gold}])
    assert product.gold == [GoldSpan("colour", "Red", 0, 3)]
    assert product.outside == [("fit", "slim")]


def test_gold_can_be_ignored(read):
    gold = [{"attribute": "colour", "value": "Red", "start": 0, "end": 3}]
    [product] = read([{"title": "Red red", "specs": SPECS, "gold": gold}], use_gold=False)
    assert len(product.gold) == 2


@pytest.mark.parametrize(
    "span",
    [
        {"attribute": "a", "value": "Red", "start": 0, "end": 30},
        {"attribute": "a", "value": "Red", "start": 3, "end": 3},
        {"attribute": "a", "value": "Red", "start": -1, "end": 3},
        {"attribute": "a", "value": "Blue", "start": 0, "end": 3},
        {"attribute": "", "value": "Red", "start": 0, "end": 3},
        {"attribute": "a", "value": "Red", "start": "0", "end": 3},
        {"attribute": "a", "value": "Red", "start": 0, "end": 3, "source": "other"},
        {"attribute": None, "start": 0, "end": 3},
        "Red",
    ],
)
def test_wrong_gold_is_left_out_and_noted(read, span):
    [product] = read([{"title": "Red hat", "gold": [span]}], as_json=True)
    assert product.gold == []
    assert len(product.notes) == 1
    assert product.notes[0].num_rows == 0


def test_named_columns_are_used(read):
    row = {"name": "Red hat", "text": "slim", "facts": json.dumps({"fit": "slim"}), "sku": "x"}
    columns = TaggedColumns(title="name", description="text", specs="facts", product_id="sku")
    [product] = read([row], columns=columns, keep=("sku",))
    assert product.product_id == "x"
    assert product.gold == [GoldSpan("fit", "slim", 0, 4, "description")]
    assert product.extra == {"sku": "x"}


def test_rows_without_label_or_text_are_dropped(read):
    rows = [{"title": "Red", "specs": SPECS}, {"title": "Red", "specs": None}, {"specs": SPECS}]
    _, unlabelled, empty = read(rows)
    assert (unlabelled.line, unlabelled.reason) == (2, "not_labelled")
    assert (empty.line, empty.reason) == (3, "empty_text")


@pytest.mark.parametrize("as_list", [False, True])
def test_pictures_in_the_table(read, jpeg, as_list):
    pictures = [jpeg, jpeg[:99], None]
    rows = [
        {"title": "Red", "specs": SPECS, "image": [picture] if as_list else picture}
        for picture in pictures
    ]
    good, broken, none = read(rows)
    assert good.pictures == [jpeg]
    assert (broken.pictures, broken.broken_pictures) == ([], ["undecodable_picture"])
    assert (none.num_pictures, none.broken_pictures) == (0, [])


def test_picture_names_need_a_folder(read, tmp_path, jpeg):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.jpg").write_bytes(jpeg)
    row = {"title": "Red", "specs": SPECS, "image": "1.jpg"}
    assert read([row], images=str(tmp_path / "p"))[0].pictures == [jpeg]
    assert read([row])[0].broken_pictures == ["wrong_type"]


def test_target_scores_of_two_texts(read):
    row = {
        "id": 5,
        "input_title": "HP Xeon",
        "input_description": "4-core",
        "target_scores": {"Core": {"4-core": {"pid": [1], "score": 1}}, "Bus": {"n/a": 1}},
    }
    [product] = read([row], as_json=True)
    assert product.gold == [GoldSpan("Core", "4-core", 0, 6, "description")]
    assert (product.product_id, product.outside) == ("5", [])


def test_target_scores_of_one_text(read):
    row = {"input": "Diesel Sneaker", "target_scores": {"Brand": {"Diesel": 1}}}
    [product] = read([row], as_json=True)
    assert product.gold == [GoldSpan("Brand", "Diesel", 0, 6)]
    assert product.product_id == "rows.jsonl@0#1"


def test_a_broken_row_group_is_a_problem_with_its_rows(tmp_path, make_config):
    path = tmp_path / "rows.parquet"
    rows = [{"title": f"Red {number} {'x' * 50}", "specs": SPECS} for number in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[60:400] = bytes(340)
    path.write_bytes(data)
    config = make_config("tagged", tmp_path)
    columns = resolve_columns(config, ["title", "specs"], where="rows")
    shard = Shard(0, RawFile(path.name, str(path), len(data), None), 0, 1)
    problems = [item for item in read_tagged(shard, config, columns) if isinstance(item, Problem)]
    assert [(problem.reason, problem.num_rows) for problem in problems] == [
        ("unreadable_row_group", 300)
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "malformed_json"),
        (b"[1]", "wrong_type"),
        (b"{" * 50_000, "malformed_json"),
        (b'{"a": ' * 50_000, "malformed_json"),
        (b"\xff\xfe", "invalid_text"),
        (None, "line_too_long"),
    ],
)
def test_lines_that_are_no_object(line, reason):
    with pytest.raises(RowError) as error:
        parse_json_line(line, max_bytes=100)
    assert error.value.reason == reason


def test_blank_lines_and_byte_order_marks():
    assert parse_json_line(b" \r", max_bytes=9) is None
    assert parse_json_line(b"\xef\xbb\xbf{}", max_bytes=9) == {}


@pytest.mark.parametrize(
    ("settings", "available", "message"),
    [
        ({"columns": TaggedColumns(title="name")}, ["title", "specs"], "no column 'name'"),
        ({"keep": ("brand",)}, ["title", "specs"], "no column 'brand'"),
        ({}, ["name", "specs"], "no title"),
        ({}, ["title"], "neither gold nor specs"),
        ({"use_gold": False}, ["title", "gold"], "neither gold nor specs"),
    ],
)
def test_wrong_columns_are_the_users_mistake(make_config, settings, available, message):
    with pytest.raises(ValueError, match=message):
        resolve_columns(make_config("tagged", "in", **settings), available, where="x.parquet")


def test_every_file_must_have_the_columns(make_config):
    columns = resolve_columns(make_config("tagged", "in"), ["title", "specs"], where="a")
    full = pa.schema([("title", pa.string()), ("specs", pa.string())])
    with pytest.raises(ValueError, match=r"specs.*b\.parquet"):
        check_schemas(columns, {"a": full, "b.parquet": full.remove(1)})


TEXTS = {"title": "HP Xeon E5335 G5", "description": "Intel Xeon E5335, 4-core"}


def match(scores, texts=TEXTS):
    return match_target_scores(texts, scores, max_values=10)


def test_pid_names_the_texts():
    found = match(
        {
            "Type": {"Xeon E5335": {"pid": [0], "score": 1}},
            "Core": {"4-core": {"pid": [1], "score": 1}},
            "Both": {"E5335": {"pid": [0, 1], "score": 1}},
        }
    )
    assert set(found.spans) == {
        GoldSpan("Type", "Xeon E5335", 3, 13),
        GoldSpan("Core", "4-core", 18, 24, "description"),
        GoldSpan("Both", "E5335", 8, 13),
        GoldSpan("Both", "E5335", 11, 16, "description"),
    }
    assert found.missing == ()


def test_a_value_of_another_text_is_missing():
    found = match({"Core": {"4-core": {"pid": [0], "score": 1}}})
    assert (found.spans, found.missing) == ((), (("Core", "4-core"),))


def test_absent_and_unwanted_values_do_not_count():
    found = match({"A": {"n/a": 1}, "B": {"N/A": {"pid": [0]}}, "C": {"HP": 0}, "D": {}})
    assert (found.spans, found.found, found.missing) == ((), (), ())


def test_plain_scores_are_sought_everywhere():
    assert [span.source for span in match({"A": {"Xeon": 1}}).spans] == ["title", "description"]


@pytest.mark.parametrize(
    "scores", [{"A": ["x"]}, {"A": "x"}, {"A": {str(n): 1 for n in range(11)}}]
)
def test_wrong_shapes_are_row_errors(scores):
    with pytest.raises(RowError):
        match(scores)
