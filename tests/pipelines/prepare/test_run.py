from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mepave_tags import join_tags

from pipelines.lake.tables import Columns, products_schema
from pipelines.prepare.run import prepare
from pipelines.prepare.title_groups import title_group
from ulsdram_core.schema import GoldSpan

pytestmark = pytest.mark.ray
DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
COLOURS = ["red", "blue", "green", "black", "white", "pink", "grey"]
THINGS = ["hat", "shirt", "shoe", "bag", "belt", "scarf", "sock", "dress", "coat", "ring"]


@pytest.fixture(autouse=True)
def cluster(ray_cluster):
    return ray_cluster


def rows_of(out: Path, split: str) -> list[dict]:
    return pl.read_parquet(out / split / "*.parquet").to_dicts()


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def mae_item(number: int, **fields) -> dict:
    colour, thing = COLOURS[number % 7], THINGS[number % 10]
    return {
        "title": f"Acme {colour} {thing} {number}",
        "text": f"A {thing} in {colour}, 3 kg",
        "specs": {"Color": colour.title(), "Kind": thing, "Origin": "Peru"},
        "images": [f"a/{number}.jpg"],
        "diffbotUri": f"item|{number}",
        **fields,
    }


@pytest.fixture
def mae_folder(tmp_path, jpeg):
    source = tmp_path / "mae"
    (source / "mumie-img" / "a").mkdir(parents=True)
    for number in range(0, 60, 2):
        (source / "mumie-img" / "a" / f"{number}.jpg").write_bytes(jpeg)
    items = [mae_item(number) for number in range(60)]
    items[5]["images"] = ["../../../etc/passwd"]
    items[7]["title"] = items[7]["text"] = None
    for split, own in {"train": items[:40], "val": items[40:50], "test": items[50:]}.items():
        (source / split).mkdir()
        half = len(own) // 2
        (source / split / "0.json").write_text(json.dumps(own[:half]))
        (source / split / "1.json").write_text(json.dumps([*own[half:], "broken"]))
    (source / "train" / "2.json").write_text("[{")
    return source


def test_mae_keeps_its_splits(mae_folder, make_config, tmp_path, jpeg):
    summary = prepare(make_config("mae", mae_folder))
    out = tmp_path / "prepared"
    assert summary["splits"] == {"train": 39, "valid": 10, "test": 10}
    rows = [row for split in summary["splits"] for row in rows_of(out, split)]
    by_id = {row["product_id"]: row for row in rows}
    assert set(by_id) == {f"item|{number}" for number in range(60) if number != 7}
    for number, row in ((int(key.split("|")[1]), row) for key, row in by_id.items()):
        assert row["images"] == ([jpeg] if number % 2 == 0 else [])
        assert {(span["attribute"], span["source"]) for span in row["gold"]} == {
            (name, source) for name in ("Color", "Kind") for source in ("title", "description")
        }
        assert all(row[s["source"]][s["start"] : s["end"]] == s["value"] for s in row["gold"])
    report = report_of(out)
    assert report["rows"]["read"] == 63
    assert report["rows"]["dropped_by_reason"] == {"wrong_type": 3, "empty_text": 1}
    assert report["pictures"]["unusable_by_reason"] == {
        "refused_address": 1,
        "unreachable_picture": 28,
    }
    assert report["pictures"]["products_without"] == 29
    assert report["attributes"]["Origin"] == {"products": 0, "spans": 0, "outside_text": 59}
    places = {(note["file"], note["line"]) for note in report["problems"]["listed"]}
    assert places == {
        ("train/0.json", 8),
        ("train/1.json", 21),
        ("train/2.json", 0),
        ("val/1.json", 6),
        ("test/1.json", 6),
    }


def test_the_table_has_the_products_schema(mae_folder, make_config, tmp_path):
    prepare(make_config("mae", mae_folder))
    expected = products_schema(Columns(image=None, image_uri=None, category=None, updated_at=None))
    for split in ("train", "valid", "test"):
        assert pq.read_schema(tmp_path / "prepared" / split / "part-00000.parquet") == expected


def test_two_runs_make_the_same_files(mae_folder, make_config, tmp_path):
    contents = []
    for _ in range(2):
        prepare(make_config("mae", mae_folder))
        folder = tmp_path / "prepared"
        contents.append(
            {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}
        )
    assert contents[0] == contents[1]
    assert [path.name for path in tmp_path.iterdir() if "prepared" in path.name] == ["prepared"]


@pytest.fixture
def table(tmp_path):
    """700 products in 70 title groups, in one folder without splits."""
    rows = [
        {
            "product_id": str(number),
            "title": f"{COLOURS[number % 7]} {THINGS[number % 10]} {number}",
            "specs": [{"attribute": "colour", "value": COLOURS[number % 7]}],
            "brand": f"b{number % 3}",
        }
        for number in range(700)
    ]
    source = tmp_path / "table"
    source.mkdir()
    for part in range(2):
        half = pa.Table.from_pylist(rows[part::2])
        pq.write_table(half, source / f"part-{part}.parquet", row_group_size=100)
    return source


def test_made_splits_keep_title_groups_together(table, make_config, tmp_path):
    summary = prepare(make_config("tagged", table, keep=("brand",), test_share=0.2))
    assert sum(summary["splits"].values()) == 700
    assert all(summary["splits"].values())
    splits_of: dict[int, set[str]] = {}
    for split in summary["splits"]:
        for row in rows_of(tmp_path / "prepared", split):
            splits_of.setdefault(title_group(row["title"]), set()).add(split)
            assert row["brand"] == f"b{int(row['product_id']) % 3}"
    assert len(splits_of) == 70
    assert all(len(splits) == 1 for splits in splits_of.values())


def test_leaks_are_counted_or_dropped(make_config, tmp_path, write_lines):
    def row(title):
        return {"title": title, "specs": {"colour": "red"}}

    write_lines(
        tmp_path / "in" / "train.jsonl", [row("red hat 5"), row("red shoe"), row("red bag")]
    )
    write_lines(tmp_path / "in" / "valid.jsonl", [row("Red Bag"), row("red scarf")])
    write_lines(tmp_path / "in" / "test.jsonl", [row("Hat, red")])
    config = make_config("tagged", tmp_path / "in")
    assert prepare(config)["splits"] == {"train": 3, "valid": 2, "test": 1}
    assert report_of(tmp_path / "prepared")["leaks"]["products_by_split"] == {"train": 2}
    summary = prepare(config.model_copy(update={"drop_leaks": True}))
    assert summary["splits"] == {"train": 1, "valid": 2, "test": 1}
    assert summary["rows"]["dropped_by_reason"] == {"leak": 2}


def test_repeated_ids_and_an_empty_train_are_told(make_config, tmp_path, write_lines):
    rows = [{"id": n % 3, "title": f"red hat {n}", "specs": {"c": "red"}} for n in range(5)]
    write_lines(tmp_path / "in" / "test.jsonl", rows)
    summary = prepare(make_config("tagged", tmp_path / "in"))
    assert summary["splits"] == {"train": 0, "valid": 0, "test": 5}
    assert [warning.split()[0] for warning in summary["warnings"]] == ["train", "2"]
    duplicates = {"rows": 2, "ids": 2, "listed": ["0", "1"]}
    assert report_of(tmp_path / "prepared")["duplicate_ids"] == duplicates


def test_a_missing_valid_is_made_of_train(make_config, tmp_path, write_lines):
    rows = [{"title": f"{c} {t}", "specs": {"c": c}} for c in COLOURS for t in THINGS]
    write_lines(tmp_path / "in" / "train_large.jsonl", rows)
    write_lines(tmp_path / "in" / "test.jsonl", rows[:5])
    summary = prepare(make_config("tagged", tmp_path / "in", valid_share=0.3))
    assert summary["splits"]["test"] == 5
    assert summary["splits"]["train"] + summary["splits"]["valid"] == 70
    assert 5 < summary["splits"]["valid"] < 40
    origins = {name: s["origin"] for name, s in report_of(tmp_path / "prepared")["splits"].items()}
    assert origins == {"train": "input", "valid": "title groups of train", "test": "input"}


def test_problems_are_numbered_across_chunks(make_config, tmp_path, write_lines):
    rows = [{"title": f"red hat {number}", "specs": {"colour": "red"}} for number in range(50)]
    bad = [3, 17, 30, 44]
    lines = ["{" if number in bad else row for number, row in enumerate(rows)]
    lines[20] = ""
    write_lines(tmp_path / "in" / "rows.jsonl", lines)
    prepare(make_config("tagged", tmp_path / "in", chunk_bytes=500))
    report = report_of(tmp_path / "prepared")
    assert [note["line"] for note in report["problems"]["listed"]] == [n + 1 for n in bad]
    assert report["rows"] | {"dropped_by_reason": None} == {
        "read": 49,
        "kept": 45,
        "dropped": 4,
        "dropped_by_reason": None,
        "blank_lines": 1,
        "without_gold": 0,
    }


def test_corrections_override_gold(table, make_config, tmp_path):
    (tmp_path / "fix.csv").write_text(
        "product_id,attribute,value,correct,right_value\n"
        "3,colour,black,no,\n"
        "4,colour,white,no,shoe\n"
        "5,kind,scarf,yes,\n"
    )
    prepare(make_config("tagged", table, corrections=str(tmp_path / "fix.csv")))
    gold = {
        row["product_id"]: [(span["attribute"], span["value"]) for span in row["gold"]]
        for split in ("train", "valid", "test")
        for row in rows_of(tmp_path / "prepared", split)
    }
    assert gold["3"] == []
    assert gold["4"] == []  # the text lacks the right value
    assert gold["5"] == [("colour", "pink"), ("kind", "scarf")]
    assert gold["6"] == [("colour", "grey")]
    assert report_of(tmp_path / "prepared")["corrections"] == {
        "applied": 3,
        "spans_removed": 2,
        "spans_added": 1,
        "outside_text": 1,
    }


def test_many_pieces_become_files_and_groups_of_even_size(table, make_config, tmp_path):
    config = make_config("tagged", table, splits="made", valid_share=0.0, test_share=0.0)
    prepare(config.model_copy(update={"row_group_bytes": 6_000, "file_bytes": 20_000}))
    files = sorted((tmp_path / "prepared" / "train").iterdir())
    groups = [
        pq.read_metadata(file).row_group(number).num_rows
        for file in files
        for number in range(pq.read_metadata(file).num_row_groups)
    ]
    assert len(files) > 1
    assert sum(groups) == 700
    assert max(groups) < 5 * min(groups)


def test_zero_usable_rows_leave_nothing_behind(make_config, tmp_path, write_lines):
    write_lines(tmp_path / "in" / "rows.jsonl", [{"title": "a", "specs": 3}, {"title": "b"}])
    with pytest.raises(ValueError, match=r"no usable product.*rows\.jsonl:1"):
        prepare(make_config("tagged", tmp_path / "in"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_lake_is_read_and_written_by_uri(make_config, table, s3_bucket):
    fs, uri, options = s3_bucket
    fs.put(str(table), f"{uri}/table", recursive=True)
    config = make_config("tagged", f"{uri}/table", storage_options=options)
    summary = prepare(config.model_copy(update={"output": f"{uri}/prepared"}))
    assert sum(summary["splits"].values()) == 700
    found = [f"s3://{path}".removeprefix(uri) for path in fs.find(uri)]
    assert [path for path in found if not path.startswith("/table/")] == [
        "/prepared/_ulsdram.json",
        "/prepared/report.json",
        "/prepared/report.md",
        "/prepared/test/part-00000.parquet",
        "/prepared/train/part-00000.parquet",
        "/prepared/valid/part-00000.parquet",
    ]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmark files beside the checkout")
def test_mepave_joins_back_exactly(make_config, tmp_path):
    summary = prepare(make_config("mepave", DATA / "mepave"))
    assert summary["splits"] == {"train": 200, "valid": 200, "test": 200}
    assert summary["rows"]["without_gold"] == 68
    for split in summary["splits"]:
        rows = {row["product_id"]: row for row in rows_of(tmp_path / "prepared", split)}
        lines = (DATA / "mepave" / f"jdai.jave.fashion.{split}").read_text("utf-8").splitlines()
        assert len(lines) == len(rows) == 200
        for line in lines:
            cid, sid, sentence, tagged = line.split("\t")
            row = rows[f"{cid}/{sid}"]
            spans = [GoldSpan(**span) for span in row["gold"]]
            assert row["title"] == sentence
            assert join_tags(sentence, spans) == tagged
