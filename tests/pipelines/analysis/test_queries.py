"""Every query on one state of a table against a slow plain answer, over seeded random tables."""

from collections import Counter, defaultdict

import polars as pl
import pytest

from pipelines import analysis as a
from pipelines.normalization.normalizer import Normalizer
from ulsdram_core.reasons import MEANINGS, Reason

SEEDS = range(4)
SHIPPED = Normalizer.load()


@pytest.fixture(scope="module", params=SEEDS)
def opened(
    request, tmp_path_factory, make_rows, make_quarantine, make_products, publish, write_products
):
    """The rows, the products and the table of one seed."""
    tmp_path = tmp_path_factory.mktemp("table")
    rows, rejected = make_rows(request.param), make_quarantine(request.param)
    products = make_products(request.param)
    uri = publish(tmp_path / "t", rows, "r1", rejected)
    catalog = write_products(tmp_path / "products.parquet", products)
    return rows, rejected, products, a.table(uri, products=catalog)


def values_of(rows: list[dict], normalizer: Normalizer | None = None) -> list[dict]:
    found = []
    for row in rows:
        if row["status"] == "vanished":
            continue
        for value in row["values"] or []:
            again = normalizer and normalizer.normalize(value["value"], value["attribute"])
            normalized = again or value["normalized"] or value["value"]
            kept = ("product_id", "status", "model_id", "run_id", "extracted_at")
            found.append({**{k: row[k] for k in kept}, **value, "normalized": normalized})
    return found


def mean(numbers) -> float:
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def by_attribute(values: list[dict]) -> dict[str, list[dict]]:
    groups = defaultdict(list)
    for value in values:
        groups[value["attribute"]].append(value)
    return dict(sorted(groups.items()))


def in_order(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.sort("product_id", "attribute", "value", "source", "start", "confidence")


@pytest.mark.parametrize("normalizer", [None, SHIPPED])
def test_long(opened, assert_answer, normalizer):
    rows, _, _, table = opened
    table = a.ResultTable(table.storage, table.commit, normalizer=normalizer)
    key = ("product_id", "attribute", "value", "source", "start", "confidence")
    expected = sorted(values_of(rows, normalizer), key=lambda v: [v[k] for k in key])
    assert_answer(in_order(table.long()).drop("extracted_at"), [without_time(v) for v in expected])


def without_time(value: dict) -> dict:
    return {k: v for k, v in value.items() if k != "extracted_at"}


def test_summary(opened, assert_answer):
    rows, _, _, table = opened
    counts = Counter(row["status"] for row in rows)
    expected = []
    for status in sorted(counts):
        num_values = sum(len(row["values"] or []) for row in rows if row["status"] == status)
        expected.append(
            {
                "status": status,
                "products": counts[status],
                "values": num_values,
                "values_per_product": num_values / counts[status],
            }
        )
    assert_answer(table.summary(), expected)


def plain_coverage(rows: list[dict], categories: dict | None) -> list[dict]:
    live = [row for row in rows if row["status"] != "vanished"]

    def group_of(product_id: str):
        return None if categories is None else categories.get(product_id)

    groups = {group_of(row["product_id"]) for row in live}
    expected = []
    for attribute, values in by_attribute(values_of(rows)).items():
        for group in sorted(groups, key=lambda g: (g is not None, g)):
            num_products = sum(group_of(row["product_id"]) == group for row in live)
            own = [v for v in values if group_of(v["product_id"]) == group]
            if not own:
                continue
            filled = len({v["product_id"] for v in own})
            expected.append(
                {
                    "attribute": attribute,
                    **({} if categories is None else {"category": group}),
                    "products": num_products,
                    "filled": filled,
                    "coverage": filled / num_products,
                    "values": len(own),
                    "distinct_values": len({v["normalized"] for v in own}),
                    "mean_confidence": mean(v["confidence"] for v in own),
                }
            )
    return expected


def test_coverage(opened, assert_answer):
    rows, _, _, table = opened
    assert_answer(table.coverage(), plain_coverage(rows, None))


def test_coverage_by_category(opened, assert_answer):
    rows, _, products, table = opened
    categories = {product["product_id"]: product["category"] for product in products}
    assert_answer(table.coverage(by_category=True), plain_coverage(rows, categories))


def test_top_values(opened, assert_answer):
    rows, _, _, table = opened
    expected = []
    for attribute, values in by_attribute(values_of(rows)).items():
        counts = Counter(value["normalized"] for value in values)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
        for rank, (normalized, count) in enumerate(ranked, start=1):
            own = [value for value in values if value["normalized"] == normalized]
            expected.append(
                {
                    "attribute": attribute,
                    "rank": rank,
                    "normalized": normalized,
                    "count": count,
                    "share": count / len(values),
                    "mean_confidence": mean(v["confidence"] for v in own),
                    "example": min(v["value"] for v in own),
                }
            )
    assert_answer(table.top_values(limit=3), expected)


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_histogram(opened, assert_answer, bins):
    rows, _, _, table = opened
    expected = []
    for attribute, values in by_attribute(values_of(rows)).items():
        found = Counter(min(int(value["confidence"] * bins), bins - 1) for value in values)
        expected += [
            {
                "attribute": attribute,
                "bin_start": number / bins,
                "bin_end": (number + 1) / bins,
                "count": found[number],
            }
            for number in range(bins)
        ]
    assert_answer(table.histogram(bins=bins), expected)


@pytest.mark.parametrize(("threshold", "limit"), [(0.5, 7), (0.25, None), (0.0, 5)])
def test_low_confidence(opened, assert_answer, threshold, limit):
    rows, _, _, table = opened
    key = ("confidence", "product_id", "attribute", "start", "source", "value")
    below = [value for value in values_of(rows) if value["confidence"] < threshold]
    expected = sorted(below, key=lambda v: [v[k] for k in key])[:limit]
    found = table.low_confidence(threshold=threshold, limit=limit).drop("extracted_at")
    assert_answer(found, [without_time(value) for value in expected])


def plain_conflicts(rows: list[dict], single: set[str] | None, max_multiple: float) -> list[dict]:
    best = defaultdict(dict)
    for value in values_of(rows):
        own = best[value["product_id"], value["attribute"]]
        own[value["normalized"]] = max(value["confidence"], own.get(value["normalized"], 0))
    if single is None:
        filled = Counter(attribute for _, attribute in best)
        multiple = Counter(attribute for (_, attribute), own in best.items() if len(own) > 1)
        single = {name for name in filled if multiple[name] <= max_multiple * filled[name]}
    expected = []
    for (product_id, attribute), own in best.items():
        if len(own) < 2 or attribute not in single:
            continue
        ranked = sorted(own.items(), key=lambda item: (-item[1], item[0]))
        expected.append(
            {
                "product_id": product_id,
                "attribute": attribute,
                "num_values": len(own),
                "values": " | ".join(value for value, _ in ranked),
                "confidence": ranked[0][1],
                "margin": ranked[0][1] - ranked[1][1],
            }
        )
    return sorted(expected, key=lambda row: (row["margin"], row["product_id"], row["attribute"]))


@pytest.mark.parametrize(
    ("single", "max_multiple"), [(("color",), 0.1), (None, 0.25), (None, 1.0), (None, 0.0)]
)
def test_conflicts(opened, assert_answer, single, max_multiple):
    rows, _, _, table = opened
    expected = plain_conflicts(rows, single and set(single), max_multiple)
    found = table.conflicts(single_valued=single, max_multiple=max_multiple)
    assert_answer(found, expected)


def test_reasons(opened, assert_answer):
    rows, rejected, _, table = opened
    entries = [("extractions", r["status"], r["reason"], 1) for r in rows if r["reason"]]
    entries += [("quarantine", "quarantined", r["reason"], r["num_rows"]) for r in rejected]
    groups = defaultdict(list)
    for *key, num_rows in entries:
        groups[tuple(key)].append(num_rows)
    expected = [
        {
            "kept_in": kept_in,
            "status": status,
            "reason": reason,
            "entries": len(counts),
            "rows": sum(count or 0 for count in counts),
            "meaning": MEANINGS[Reason(reason)],
        }
        for (kept_in, status, reason), counts in groups.items()
    ]
    expected.sort(key=lambda row: (row["kept_in"], -row["rows"], row["reason"], row["status"]))
    assert_answer(table.reasons(), expected)


def test_only_named_attributes_and_categories(opened, assert_answer):
    rows, _, products, table = opened
    shoes = {p["product_id"] for p in products if p["category"] == "shoes"}
    kept = [
        {**row, "values": [v for v in row["values"] or [] if v["attribute"] in ("color", "size")]}
        for row in rows
        if row["product_id"] in shoes
    ]
    table = a.ResultTable(
        table.storage,
        table.commit,
        catalog=table.catalog,
        attributes=("color", "size"),
        categories=("shoes",),
    )
    assert_answer(table.coverage(), plain_coverage(kept, None))
    expected = Counter(row["status"] for row in kept)
    assert dict(table.summary().select("status", "products").collect().iter_rows()) == expected


def test_a_table_without_rows_answers_with_no_rows(tmp_path, publish):
    table = a.table(publish(tmp_path / "t", [], "r1"))
    frames = [
        table.long(), table.summary(), table.coverage(), table.top_values(), table.histogram(),
        table.low_confidence(), table.conflicts(), table.reasons(), table.drift(0),
        table.new_values(0),
    ]  # fmt: skip
    assert [frame.collect().height for frame in frames] == [0] * len(frames)


def test_sql(opened):
    rows, _, _, table = opened
    found = table.sql("SELECT attribute, COUNT(*) AS n FROM values GROUP BY attribute").collect()
    assert dict(found.iter_rows()) == Counter(value["attribute"] for value in values_of(rows))
    with pytest.raises(a.QueryError, match="the tables are"):
        table.sql("SELEC 1")
