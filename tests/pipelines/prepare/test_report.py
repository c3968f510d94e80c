from __future__ import annotations

import json

from pipelines.prepare.compaction import WrittenFile
from pipelines.prepare.duplicates import Duplicates
from pipelines.prepare.report import build_report, render_markdown
from pipelines.prepare.rows import Problem, RawProduct
from pipelines.prepare.shards import Ignored
from pipelines.prepare.tally import Tally
from ulsdram_core.schema import GoldSpan


def product(**fields) -> RawProduct:
    return RawProduct(line=1, product_id="1", texts={"title": "navy blue"}, **fields)


def tally_of(*products: RawProduct, problems=()) -> Tally:
    tally = Tally()
    for item in products:
        tally.add_product(item, split="train", file="f")
    for problem in problems:
        tally.add_problem(problem, file="f")
    return tally


def test_products_are_counted():
    gold = [GoldSpan("colour", "navy blue", 0, 9), GoldSpan("shade", "blue", 5, 9)]
    tally = tally_of(
        product(
            gold=gold,
            specs=[("colour", "navy blue"), ("fit", "slim")],
            outside=[("fit", "slim")],
            pictures=[b"x"],
            num_pictures=2,
            broken_pictures=["undecodable_picture"],
        ),
        product(),
        problems=[Problem(3, "malformed_json", "x", num_rows=1), Problem(4, "note", "x", 0)],
    )
    assert (tally.read, tally.kept, tally.dropped) == (3, 2, {"malformed_json": 1})
    assert (tally.pictures_named, tally.pictures_used, tally.without_picture) == (2, 1, 1)
    assert (tally.spans, tally.values, tally.values_outside_text) == (2, 2, 1)
    assert (tally.overlapping_pairs, tally.products_with_overlap) == (1, 1)
    assert tally.products_without_gold == 1
    assert tally.attributes["fit"].model_dump() == {"products": 0, "spans": 0, "outside_text": 1}
    assert tally.num_problems == 2


def test_merging_equals_counting_together():
    one = [product(gold=[GoldSpan("a", "x", 0, 1)], broken_pictures=["x"], num_pictures=1)]
    other = [product(specs=[("b", "y")], outside=[("b", "y")])] * 2
    problems = [Problem(2, "r", "d")]
    merged = Tally()
    merged.merge(tally_of(*one, problems=problems))
    merged.merge(tally_of(*other, problems=problems))
    assert merged == tally_of(*one, *other, problems=problems * 2).model_copy(
        update={"notes": merged.notes}
    )


def test_lines_are_numbered_in_the_file():
    merged = Tally()
    problems = [Problem(2, "r", "d"), Problem(0, "whole file", "d", 0)]
    merged.merge(tally_of(problems=problems), first_line=100)
    assert [note.line for note in merged.notes] == [102, 0]


def test_lists_are_bounded_and_counts_are_not():
    problems = [Problem(line, "r", "d" * 5000) for line in range(1, 1001)]
    merged = Tally()
    for _ in range(3):
        merged.merge(tally_of(problems=problems), max_notes=150)
    assert (len(merged.notes), merged.num_problems) == (150, 3000)
    assert max(len(note.detail) for note in merged.notes) <= 300


def test_the_report_tells_and_escapes(make_config):
    tally = tally_of(
        product(gold=[GoldSpan("<b>|a", "x", 0, 1)]),
        problems=[Problem(7, "malformed_json", "| <script>\nx")],
    )
    written = [WrittenFile(split="train", name="p", num_rows=1, num_bytes=9, row_group_bytes=[8])]
    config = make_config("mae", "s3://key:hunter2hunter2@bucket/in")
    origins = dict.fromkeys(("train", "valid", "test"), "input")
    report = build_report(
        config,
        tally,
        written,
        split_origin=origins,
        ignored=Ignored(2, ["<i>.txt", "b"]),
        duplicates=Duplicates(rows=3, ids=2, listed=["x1", "x2"]),
    )
    assert "hunter2" not in json.dumps(report)
    assert report["rows"]["dropped_by_reason"] == {"malformed_json": 1}
    assert report["splits"]["train"]["bytes"] == 9
    markdown = render_markdown(report)
    assert "f:7 | malformed_json" in markdown
    assert "<script>" not in markdown
    assert "<b>" not in markdown
    assert "&lt;i>.txt" in markdown
    assert "3 rows repeat one of 2 product ids" in markdown
    assert "| x1 |" in markdown
