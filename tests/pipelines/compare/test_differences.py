"""Comparisons against plain Python, the gate, and both kinds of output."""

import json
from collections import Counter

import pytest

from pipelines.analysis import table
from pipelines.checks import FAILED, PASSED
from pipelines.command.terminal import Style
from pipelines.compare.differences import Answers, GateLimits, compare
from pipelines.compare.job import CompareRequest, run_comparison
from pipelines.errors import RunFailedError
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage

PLAIN = Style(False)


def answers_of(rows: list[dict]) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for value in row["values"]:
            key = row["product_id"], value["attribute"]
            found.setdefault(key, set()).add(value["normalized"].lower())
    return found


def plain_kinds(shop) -> Counter:
    """(attribute, kind) -> answers, over the products live in both nights."""
    vanished = {r["product_id"] for r in shop.rows["night-2"] if r["status"] == "vanished"}
    before, after = (
        {k: v for k, v in answers_of(shop.rows[night]).items() if k[0] not in vanished}
        for night in ("night-1", "night-2")
    )
    kinds: Counter = Counter()
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        kind = "gained" if old is None else "lost" if new is None else "changed"
        kinds[key[1], "kept" if old == new else kind] += 1
    return kinds


@pytest.fixture(scope="module")
def sides(shop):
    return [
        Answers(night, table(shop.table, at=night).extractions())
        for night in ("night-1", "night-2")
    ]


@pytest.fixture(scope="module")
def comparison(shop, sides):
    return compare(*sides, gold=ProductReader(Storage.of(shop.catalogue)).gold())


def test_counts_equal_a_plain_comparison(shop, comparison):
    expected = plain_kinds(shop)
    found = {
        (row["attribute"], kind): row[kind]
        for row in comparison.per_attribute.iter_rows(named=True)
        for kind in ("kept", "changed", "gained", "lost")
        if row[kind]
    }
    assert found == dict(expected)
    assert {kind for _, kind in expected} == {"kept", "changed", "gained", "lost"}
    assert (comparison.num_products, comparison.num_only) == (39, (1, 0))


def test_shares_products_and_quality(shop, comparison):
    totals = comparison.totals
    changed = totals["changed"] + totals["gained"] + totals["lost"]
    assert comparison.changed_share == pytest.approx(changed / sum(totals.values()))
    old = totals["kept"] + totals["changed"] + totals["lost"]
    assert comparison.kept_share == pytest.approx(totals["kept"] / old)
    rows = [answers_of([r]) for r in shop.rows["night-1"][1:]]
    others = [answers_of([r]) for r in shop.rows["night-2"][1:]]
    assert comparison.num_equal == sum(a == b for a, b in zip(rows, others, strict=True))
    before, after = comparison.quality
    assert before.total["f1"] > 0.99 > after.total["f1"]


def test_a_side_equals_itself(sides):
    same = compare(sides[0], sides[0])
    assert (same.changed_share, same.kept_share, same.changes.height) == (0, 1, 0)
    assert same.num_equal == same.num_products == 40


def test_letter_case_and_spaces_are_no_change(sides):
    import polars as pl

    shouted = sides[0].extractions.with_columns(
        pl.col("values").list.eval(
            pl.element().struct.with_fields(
                normalized=pl.field("normalized").str.to_uppercase() + " "
            )
        )
    )
    assert compare(sides[0], Answers("shouted", shouted)).changed_share == 0


def test_one_attribute_alone(shop, sides):
    found = compare(*sides, attributes=["extra"])
    expected = plain_kinds(shop)["extra", "gained"]
    assert found.totals == {"kept": 0, "changed": 0, "gained": expected, "lost": 0}


def test_nothing_shared_is_a_wrong_request(sides):
    with pytest.raises(ValueError, match="share"):
        compare(sides[0], Answers("empty", sides[1].extractions.clear()))


@pytest.mark.parametrize(
    ("limits", "verdicts"),
    [
        (GateLimits(), []),
        (GateLimits(max_changed_share=1.0), [PASSED]),
        (GateLimits(max_changed_share=0.0, min_kept_share=0.0), [FAILED, PASSED]),
        (GateLimits(min_kept_share=1.0), [FAILED]),
    ],
)
def test_gate(comparison, limits, verdicts):
    assert [check.verdict for check in comparison.gate(limits)] == verdicts


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_limits_are_shares(share):
    with pytest.raises(ValueError, match="--min-kept-share"):
        GateLimits(min_kept_share=share)


def test_a_failed_gate_writes_its_outputs_and_raises(shop, tmp_path):
    request = CompareRequest(
        tables=(f"{shop.table}@night-1", shop.table),
        limits=GateLimits(max_changed_share=0.0),
        out=Storage.of(tmp_path / "c.json"),
    )
    with pytest.raises(RunFailedError, match="changed share") as caught:
        run_comparison(request, style=PLAIN)
    assert "FAILED" in caught.value.text
    assert caught.value.summary["products"] == 39
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["gate"][0]["verdict"] == FAILED
    assert written["changed_share"] == caught.value.summary["changed_share"]


def test_two_models_on_one_catalogue(shop, tmp_path):
    request = CompareRequest(
        models=(shop.model("dram"), shop.model("vl")),
        products=ProductReader(Storage.of(shop.catalogue)),
        limit=12,
        out=Storage.of(tmp_path / "c.html"),
    )
    found = run_comparison(request, style=PLAIN)
    assert found.summary["products"] == 12
    assert (found.summary["before"], found.summary["after"]) == ("ULS-DRAM", "ULS-VL")
    assert "pwned" not in (tmp_path / "c.html").read_text().partition('id="data"')[0]
    assert "\u2028" not in found.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": ("a",)}, "two"),
        ({"tables": ("a", "b"), "models": ("a", "b")}, "two"),
        ({"models": ("a", "b")}, "--input"),
        ({"tables": ("a", "b"), "limit": 0}, "--limit"),
        ({"tables": ("a", "b"), "out": Storage.of("x.csv")}, ".json"),
        ({"tables": ("/nowhere", "/nowhere")}, "no table"),
    ],
)
def test_wrong_requests(changes, message):
    with pytest.raises(ValueError, match=message):
        run_comparison(CompareRequest(**changes), style=PLAIN)
