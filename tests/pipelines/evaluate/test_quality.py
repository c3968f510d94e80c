"""Quality by joins equals the metrics of the core, product by product."""

import pytest

from pipelines.analysis import table
from pipelines.evaluate.quality import measure_quality
from pipelines.lake.extraction_rows import extraction_of
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from ulsdram_core.metrics import ExtractionMetrics


def plain(shop, night: str, *, category: str | None = None) -> dict:
    metrics = ExtractionMetrics()
    products = {product.product_id: product for product in shop.products}
    for row in shop.rows[night]:
        product = products[row["product_id"]]
        if row["status"] != "vanished" and category in (None, product.category):
            gold = [span for span in product.gold if span.source == "title"]
            metrics.update(gold, extraction_of(row))
    return metrics.compute()["tag"]


@pytest.fixture(scope="module")
def quality(shop):
    opened = table(shop.table)
    gold = ProductReader(Storage.of(shop.catalogue)).gold()
    return measure_quality(opened.extractions(), opened.long(), gold)


@pytest.mark.parametrize("figure", ["precision", "recall", "f1", "correct", "predicted", "gold"])
def test_figures_equal_the_core_metrics(shop, quality, figure):
    expected = plain(shop, "night-2")
    assert quality.total[figure] == pytest.approx(expected["micro"][figure])
    found = {row["attribute"]: row[figure] for row in quality.per_attribute.iter_rows(named=True)}
    assert found == pytest.approx(
        {name: row[figure] for name, row in expected["per_attribute"].items()}
    )


def test_slices_by_category(shop, quality):
    for row in quality.per_category.iter_rows(named=True):
        expected = plain(shop, "night-2", category=row["category"])["micro"]
        assert row["f1"] == pytest.approx(expected["f1"]), row["category"]


def test_only_labelled_products_of_the_table_count(shop, quality):
    assert quality.num_products == 39
    assert quality.sources == ("title",)
    opened = table(shop.table)
    gold = ProductReader(Storage.of(shop.catalogue)).gold().filter(product_id="nobody")
    assert measure_quality(opened.extractions(), opened.long(), gold) is None
