"""The paper's layout from stored runs; PAR's claim; charts that open."""

import io

import pytest
from PIL import Image

from pipelines.benchmark.paper import report
from pipelines.benchmark.paper.plot import BarRow, bar_chart, line_chart
from pipelines.benchmark.paper.suites import SUITES


def run(system, seed, *, precision, recall, outside=(0, 0), cls=None):
    f1 = 2 * precision * recall / (precision + recall)
    counts = [[round(100 * f1)] * 2, [100, 100], [100, 100]]
    names = ("correct", "predicted", "gold")
    return {
        "system": system,
        "label": system,
        "seed": seed,
        "figures": {
            "precision": precision,
            "recall": recall,
            "tag_f1": f1,
            "cls_f1": cls,
            "accuracy": recall,
        },
        "products": {**dict(zip(names, counts, strict=True)), "outside": list(outside)},
        "cost": {
            "parameters": 2_000_000,
            "trained_parameters": 500_000,
            "products_per_second": 10.0 + seed,
            "minutes": 2.0,
        },
        "sweep": [
            {"threshold": t, "precision": precision, "recall": recall, "f1": f1 - abs(t - 0.4)}
            for t in (0.3, 0.4, 0.5)
        ],
    }


@pytest.fixture
def runs():
    return {
        "uls_vl": [
            run("uls_vl", s, precision=0.80 + s / 100, recall=0.80, outside=(3, 1)) for s in (0, 1)
        ],
        "uls_vl_par": [
            run("uls_vl_par", s, precision=0.90, recall=0.85, outside=(0, 1), cls=0.9)
            for s in (0, 1)
        ],
        "uls_vl_tir": [run("uls_vl_tir", 0, precision=0.7, recall=0.7)],
    }


def cells(text, label):
    line = next(line for line in text.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_2_has_figures_gains_costs_and_the_published_apart(runs):
    table = report.measure(SUITES["table2"], runs, {"uls_dram": "failed: it diverged"})
    text = report.table_markdown(table)
    header = cells(text, "System")
    first, par = (dict(zip(header, cells(text, f"{x} |"), strict=True)) for x in ("ULS-VL", "+PAR"))
    assert table.baseline == "ULS-VL"
    assert first["Precision"] == "80.50 +- 0.71"
    assert par["Precision"] == "90.00 +- 0.00"
    assert cells(text, "+PAR |")[2] == "+9.50"
    assert par["published, MEPAVE: Precision"] == "94.99"
    assert first["TAG-F1 against best baseline (95%)"] == "-"
    assert par["TAG-F1 against best baseline (95%)"].startswith("+7.")
    assert (par["seeds"], par["products/s"], par["minutes a run"]) == ("2", "10", "2.0")
    assert par["parameters (trained)"] == "2.00 M (0.50 M)"
    assert cells(text, "+TIR |")[1] == "70.00", "one seed has no deviation"
    assert "+TIR+PAR (failed: it diverged)" in text


def test_a_metric_that_a_system_lacks_is_a_dash(runs):
    found = report.measure(SUITES["table3"], runs, {})
    assert cells(report.table_markdown(found), "ULS-VL |")[1] == "-"


def test_the_order_is_compared_with_the_published_one(runs):
    table = report.measure(SUITES["table2"], runs, {})
    assert report.table_order(table) == {
        "pairs": 3,
        "agreeing": 1,
        "against": ["+TIR under ULS-VL", "+TIR under +PAR"],
    }
    assert "1 of 3 pairs of rows stand in the published order" in report.order_markdown(table)


def test_pars_claim_is_computed_as_stated(runs):
    (claim,) = report.range_claims(runs, has_categories=True)
    assert claim.precision_gain == pytest.approx(9.5)
    assert claim.recall_gain == pytest.approx(5.0)
    assert claim.holds
    assert (claim.outside_before, claim.outside_after) == (2000.0, 500.0)
    text = report.claims_markdown([claim])
    assert "| uls_vl | uls_vl_par | +9.50 | +5.00 | yes | 2000.0 | 500.0 |" in text


def test_without_categories_the_claim_says_so(runs):
    text = report.claims_markdown(report.range_claims(runs, has_categories=False))
    assert "| - | - |" in text
    assert "columns.category" in text
    assert report.range_claims({}, has_categories=True) == []


def test_figure_8_names_the_best_threshold(runs):
    points = report.sweep_points(runs["uls_vl"])
    assert [point["threshold"] for point in points] == [0.3, 0.4, 0.5]
    assert points[0]["f1_sd"] > 0
    assert "Best here: 0.40" in report.sweep_markdown(points)
    assert report.sweep_points([]) == []


def test_json_keeps_every_figure(runs):
    found = report.table_json(report.measure(SUITES["table2"], runs, {}))
    row = found["rows"][1]
    assert row["figures"]["precision"] == {
        "mean": pytest.approx(90.0),
        "sd": pytest.approx(0.0),
        "num_seeds": 2,
    }
    assert row["published_mepave"]["tag_f1"] == 95.84
    assert row["against_best_baseline"]["num_products"] == 2


@pytest.mark.parametrize("count", [0, 1, 5])
def test_charts_are_png(count):
    rows = [BarRow("a very long label " * 5, 90.0 + i, 0.5 * i, bool(i % 2)) for i in range(count)]
    points = [(0.1 * i, 80.0 + i) for i in range(count)]
    for data in (bar_chart("bars", rows), line_chart("line", points, x_label="x")):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.format == "PNG"
            assert len(set(image.convert("L").tobytes())) > 2
