"""The report's numbers and cards on a small shop, against plain Python."""

import base64
import json
import re
from dataclasses import replace

import pytest

from pipelines.analysis import table
from pipelines.lake.extraction_rows import extraction_of
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from pipelines.report.build import ReportRequest, build_report
from pipelines.report.card import Side
from pipelines.report.card import card as draw
from pipelines.report.catalog_numbers import gather_numbers, read_runs
from pipelines.report.model_view import ModelView
from pipelines.report.sample import sample_ids
from ulsdram_core.schema import Extraction, Status, Value


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


@pytest.fixture(scope="module")
def report(shop):
    return build_report(
        ReportRequest(
            table(shop.table),
            ProductReader(Storage.of(shop.catalogue)),
            ModelView.load(Storage.of(shop.model("dram"))),
            ModelView.load(Storage.of(shop.model("vl"))),
        )
    )


def test_numbers_match_the_rows(shop):
    catalog = gather_numbers(table(shop.table), ProductReader(Storage.of(shop.catalogue)))
    rows = [row for row in shop.rows["night-2"] if row["status"] != "vanished"]
    values = [value for row in rows for value in row["values"]]
    assert catalog.num_live == len(rows)
    assert catalog.num_filled == sum(bool(row["values"]) for row in rows)
    assert catalog.mean_confidence == pytest.approx(
        sum(value["confidence"] for value in values) / len(values)
    )
    assert sum(catalog.histogram) == len(values)
    assert catalog.histogram[3] == sum(value["confidence"] < 0.4 for value in values)
    assert catalog.since == "run night-1"
    assert catalog.models == ["model of night-1"]
    extra = catalog.drift.filter(attribute="extra").row(0, named=True)
    assert (extra["filled_before"], extra["filled_after"]) == (0, 8)


def test_drift_against_any_moment_and_none_on_the_first_night(shop):
    first = gather_numbers(table(shop.table, at="night-1"), None)
    assert (first.drift, first.since, first.quality) == (None, None, None)
    same = gather_numbers(table(shop.table), None, since="night-2")
    assert same.drift["coverage_change"].abs().sum() == 0


def test_runs_come_newest_first_and_survive_other_folders(shop):
    opened = table(shop.table)
    (shop.folder / "t" / "_runs" / "_keys").mkdir(exist_ok=True)
    (shop.folder / "t" / "_runs" / "aborted").mkdir(exist_ok=True)
    (shop.folder / "t" / "_runs" / "last.json").write_text("{}", encoding="utf-8")
    assert [run["run_id"] for run in read_runs(opened)] == ["night-2", "night-1"]


def test_sample_is_fixed_complete_and_favours_trouble(shop):
    extractions = table(shop.table).extractions()
    live = {r["product_id"] for r in shop.rows["night-2"] if r["status"] != "vanished"}
    assert set(sample_ids(extractions, 200)) == live
    few = sample_ids(extractions, 8)
    assert len(few) == len(set(few)) == 8
    assert few == sample_ids(extractions, 8)
    troubled = {r["product_id"] for r in shop.rows["night-2"] if r["status"] != "ok"}
    assert len(troubled & set(few)) >= 2
    assert sample_ids(extractions, 0) == []


def test_cards_hold_what_the_tables_hold(shop, report):
    data = data_of(report.html)
    rows = {row["product_id"]: row for row in shop.rows["night-2"]}
    products = {product.product_id: product for product in shop.products}
    assert len(data["cards"]) == report.num_cards == 39
    for card in data["cards"]:
        row, product = rows[card["id"]], products[card["id"]]
        side, baseline = card["sides"]
        assert (side["name"], baseline["name"]) == ("ULS-DRAM", "ULS-VL")
        assert card["texts"][0]["text"] == product.title
        assert [v["value"] for v in side["values"]] == [v["value"] for v in row["values"]]
        assert side["status"] == row["status"]
        gold = {(s.attribute, s.start, s.end) for s in product.gold if s.source == "title"}
        for value in side["values"]:
            key = value["attribute"], value["start"], value["end"]
            assert value["correct"] == (key in gold)
        has_picture = product.picture not in (None, b"not a picture")
        assert len(card["pictures"]) == has_picture
        if not has_picture:
            assert not side["maps"] + baseline["maps"]


def test_heatmaps_cover_the_words_of_either_side(report):
    cards = [card for card in data_of(report.html)["cards"] if card["pictures"]]
    assert any(card["sides"][0]["maps"] for card in cards)
    for card in cards:
        words = [[(m["source"], m["start"], m["end"]) for m in s["maps"]] for s in card["sides"]]
        assert words[0] == words[1]
        spans = [v for side in card["sides"] for v in side["values"]]
        for source, start, end in words[0]:
            assert any(
                v["source"] == source and v["start"] < end and start < v["end"] for v in spans
            )
        for word in (m for side in card["sides"] for m in side["maps"]):
            levels = base64.b64decode(word["weights"][0])
            assert len(levels) == word["grid"][0] * word["grid"][1]
            assert (min(levels), max(levels)) == (0, 255)


def test_raw_pictures_never_leave(shop, report):
    for product in shop.products:
        if product.picture:
            assert base64.b64encode(product.picture).decode() not in report.html


def test_no_text_of_the_data_is_markup(report):
    outside = re.sub(r'id="data">.*?</script>', "", report.html, flags=re.DOTALL)
    assert "pwned" not in outside
    assert "&lt;b&gt;" in outside  # the note of the gate's check
    island = re.search(r'id="data">(.*?)</script>', report.html, re.DOTALL)[1]
    assert "pwned" in island
    assert not set("<>&\u2028") & set(island)


def test_no_products_no_models_and_no_cards(shop):
    bare = build_report(ReportRequest(table(shop.table), num_cards=3))
    assert len(data_of(bare.html)["cards"]) == 3
    assert 'name="heatmaps"' not in bare.html
    assert build_report(ReportRequest(table(shop.table), num_cards=0)).num_cards == 0


def test_a_text_that_changed_is_not_highlighted(shop):
    product = shop.products[8].to_product()
    extraction = extraction_of(shop.rows["night-1"][8])
    moved = replace(product, texts={"title": "x" + product.texts["title"]})
    for shown, is_found in ((product, True), (moved, False)):
        values = draw(shown, [Side("s", extraction)], picture_side=32)["sides"][0]["values"]
        assert {value["is_found"] for value in values} == {is_found}


def test_a_confidence_that_is_no_number_is_left_open(shop):
    product = shop.products[8].to_product()
    value = Value("color", "red", "title", 0, 3, float("nan"))
    extraction = Extraction(product.product_id, Status.OK, None, (value,))
    shown = draw(product, [Side("s", extraction)], picture_side=32)
    assert shown["sides"][0]["values"][0]["confidence"] is None
