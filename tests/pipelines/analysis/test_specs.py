"""Fill rate gained over specs, and contradictions of specs, against plain answers."""

import pytest

from pipelines import analysis as a
from pipelines.normalization.normalizer import Normalizer

SHIPPED = Normalizer.load()


@pytest.fixture(scope="module", params=range(4))
def opened(request, tmp_path_factory, make_rows, make_products, publish, write_products):
    tmp_path = tmp_path_factory.mktemp("table")
    rows, products = make_rows(request.param), make_products(request.param + 50)
    uri = publish(tmp_path / "t", rows, "r1")
    catalog = write_products(tmp_path / "products.parquet", products)
    return rows, products, a.table(uri, products=catalog)


def given(product: dict | None) -> list[tuple[str, str]]:
    found = []
    for spec in (product or {}).get("specs") or []:
        attribute, value = spec["attribute"].strip(), (spec["value"] or "").strip()
        if attribute and value:
            found.append((attribute, value))
    return found


def plain_gain(rows: list[dict], products: list[dict], *, by_category: bool) -> list[dict]:
    known = {product["product_id"]: product for product in products}
    groups: dict = {}
    for row in rows:
        if row["status"] == "vanished":
            continue
        product = known.get(row["product_id"])
        group = (product or {}).get("category") if by_category else ()
        extracted = {value["attribute"] for value in row["values"] or []}
        in_specs = {attribute for attribute, _ in given(product)}
        groups.setdefault(group, []).append((in_specs, extracted))
    expected = []
    for group, pairs in groups.items():
        for attribute in set().union(*(s | e for s, e in pairs)):
            num_specs = sum(attribute in s for s, _ in pairs)
            num_extracted = sum(attribute in e for _, e in pairs)
            both = sum(attribute in s & e for s, e in pairs)
            gained = num_extracted - both
            expected.append(
                {
                    "attribute": attribute,
                    **({"category": group} if by_category else {}),
                    "products": len(pairs),
                    "in_specs": num_specs,
                    "extracted": num_extracted,
                    "both": both,
                    "gained": gained,
                    "fill_before": num_specs / len(pairs),
                    "fill_after": (num_specs + gained) / len(pairs),
                    "gain": gained / len(pairs),
                }
            )
    return sorted(
        expected,
        key=lambda row: (
            -row["gain"], row["attribute"], row.get("category") is not None, row.get("category"),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("by_category", [False, True])
def test_fill_gain(opened, assert_answer, by_category):
    rows, products, table = opened
    expected = plain_gain(rows, products, by_category=by_category)
    assert_answer(table.fill_gain(by_category=by_category), expected)


def plain_conflicts(rows: list[dict], products: list[dict]) -> list[dict]:
    known = {product["product_id"]: given(product) for product in products}
    expected = []
    for row in rows:
        if row["status"] == "vanished":
            continue
        for value in row["values"] or []:
            attribute = value["attribute"]
            specs = [text for name, text in known.get(row["product_id"], []) if name == attribute]
            normalized = SHIPPED.normalize(value["value"], attribute)
            if not specs or normalized in [SHIPPED.normalize(s, attribute) for s in specs]:
                continue
            answer = {
                "product_id": row["product_id"],
                "attribute": attribute,
                "value": value["value"],
                "normalized": normalized,
                "confidence": value["confidence"],
                "spec_values": " | ".join(specs),
            }
            key = (-value["confidence"], row["product_id"], attribute, value["start"])
            expected.append((key, answer))
    return [answer for _, answer in sorted(expected, key=lambda item: item[0])]


@pytest.mark.parametrize("limit", [None, 3])
def test_spec_conflicts(opened, assert_answer, limit):
    rows, products, table = opened
    assert_answer(table.spec_conflicts(limit=limit), plain_conflicts(rows, products)[:limit])


def test_specs_need_a_products_table(opened):
    table = a.ResultTable(opened[2].storage, opened[2].commit)
    with pytest.raises(a.QueryError, match="--products"):
        table.fill_gain()
