"""The demo catalogue as products tables: labelled splits, and nights of the catalogue job."""

import itertools
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.storage import Storage
from pipelines.lake.tables import GOLD, SPEC, TIMESTAMP
from ulsdram_core.demo import DemoConfig, DemoProduct, generate, split

SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("image", pa.binary()),
        ("category", pa.string()),
        ("updated_at", TIMESTAMP),
        ("specs", pa.list_(SPEC)),
        ("gold", pa.list_(GOLD)),
        ("catalog_id", pa.string()),
        ("trait", pa.string()),
    ]
)
GROUP_ROWS = 1000


def product_row(product: DemoProduct) -> dict[str, Any]:
    """Return one product as a row of `SCHEMA`."""
    return {
        "product_id": product.product_id,
        "title": product.title,
        "description": product.description or None,
        "image": product.picture,
        "category": product.category,
        "updated_at": product.updated_at,
        "specs": [{"attribute": name, "value": value} for name, value in product.specs],
        "gold": [
            {
                "attribute": span.attribute,
                "value": span.value,
                "start": span.start,
                "end": span.end,
                "source": span.source,
            }
            for span in product.gold
        ],
        "catalog_id": product.catalog_id,
        "trait": product.trait,
    }


def write_products(products: Iterable[DemoProduct], place: Storage) -> int:
    """Write one Parquet file of products, row group by row group; returns the rows written."""
    if place.is_local:
        Storage.of(place.uri.rsplit("/", 1)[0]).make_folder()
    written = 0
    rows = iter(products)
    with pq.ParquetWriter(place.path, SCHEMA, filesystem=place.arrow) as writer:
        while group := list(itertools.islice(rows, GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist([product_row(p) for p in group], SCHEMA))
            written += len(group)
    return written


def write_splits(config: DemoConfig, place: Storage) -> dict[str, int]:
    """Write a labelled catalogue as train/, valid/ and test/; returns rows per split."""
    parts: dict[str, list[DemoProduct]] = {"train": [], "valid": [], "test": []}
    for product in generate(config):
        parts[split(product.catalog_id)].append(product)
    return {
        name: write_products(products, place.join(name, "part-00000.parquet"))
        for name, products in parts.items()
    }
