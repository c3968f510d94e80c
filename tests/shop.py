"""A small shop: demo products, two nights of extractions made from their gold, two models."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from deltalake import CommitProperties, write_deltalake

from pipelines.demo.tables import write_products
from pipelines.lake.documents import write_json
from pipelines.lake.storage import Storage
from pipelines.lake.tables import (
    EXTRACTIONS,
    EXTRACTIONS_SCHEMA,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    bucket_of,
    create_table,
)
from ulsdram_core.demo import DemoConfig, DemoProduct, generate
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.extractor import Extractor
from ulsdram_core.image import ImageConfig
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.parts import ExtractorConfig, assemble

EVIL = '<script>document.title = "pwned"</script></script> & "red" \u2028 <img src=x onerror=x()>'
PICTURE = {"image_encoder": {"architecture": "tiny", "width": 8}}
SYSTEMS = {
    "dram": {"policy": {"kind": "prototype"}, "fusion": {"kind": "tir"}, **PICTURE},
    "vl": {
        "policy": {"kind": "none"}, "head": "none", "fusion": {"kind": "concat"}, **PICTURE,
    },
    "text": {"policy": {"kind": "none"}, "head": "none"},
}  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """Where everything lies."""

    folder: Path
    products: list[DemoProduct]
    rows: dict[str, list[dict]]
    """Extractions of night-1 and night-2."""

    @property
    def table(self) -> str:
        return str(self.folder / "t")

    @property
    def catalogue(self) -> str:
        return str(self.folder / "products.parquet")

    def model(self, name: str) -> str:
        return str(self.folder / name)


def make_model(name: str, products: list[DemoProduct], folder: Path) -> None:
    """An untrained model: it answers nonsense, quickly and always the same."""
    torch.manual_seed(3)
    labelled = [product.to_product() for product in products]
    tokenizer = build_tokenizer([product.title for product in products], 300)
    text = {"name": "tiny", "hidden": 32, "layers": 1, "heads": 2}
    model = ModelConfig(**{"text_encoder": text, **SYSTEMS[name]})
    image = ImageConfig(size=64) if model.image_encoder else None
    config = ExtractorConfig(model=model, image=image)
    Extractor(assemble(config, LabelSet.from_products(labelled), tokenizer)).save(folder / name)


def gold_row(product: DemoProduct, run_id: str) -> dict:
    """What a perfect model would store of a title."""
    spans = [span for span in product.gold if span.source == "title"]
    return {
        "product_id": product.product_id,
        "bucket": bucket_of(product.product_id, 2),
        "status": "ok" if product.picture else "degraded",
        "reason": None if product.picture else "no_picture",
        "values": [
            {
                "attribute": span.attribute, "value": span.value,
                "normalized": span.value.lower(), "source": "title", "start": span.start,
                "end": span.end, "confidence": 0.3 + 0.65 * (place % 2),
            }
            for place, span in enumerate(spans)
        ],
        "range": [{"attribute": "color", "score": 0.75}],
        "input_hash": "0" * 32,
        "model_id": f"model of {run_id}",
        "run_id": run_id,
        "extracted_at": datetime(2024, 3, 1, tzinfo=UTC),
        "schema_version": 1,
    }  # fmt: skip


def second_night(rows: list[dict]) -> list[dict]:
    """Loses, gains and changes some values; one product vanishes, one is quarantined."""
    changed = []
    for place, row in enumerate(rows):
        values = [dict(value) for value in row["values"]]
        if place % 5 == 1:
            values = values[1:]
        if place % 5 == 2 and values:
            values[0] |= {"value": "other", "normalized": "other"}
        if place % 5 == 3:
            values.append({**values[0], "attribute": "extra"})
        changed.append({**row, "values": values, "run_id": "night-2"})
    changed[0] |= {"status": "vanished", "reason": None}
    changed[5] |= {"status": "quarantined", "reason": "empty_text", "values": []}
    return changed


def write_night(table: Storage, rows: list[dict], run_id: str) -> None:
    rejected = {"file": "f", "row_group": 0, "row": 1, "num_rows": 1, "reason": "null_id"}
    contents = {
        EXTRACTIONS: pa.Table.from_pylist(rows, EXTRACTIONS_SCHEMA),
        QUARANTINE: pa.Table.from_pylist([rejected], QUARANTINE_SCHEMA),
    }
    for name, content in contents.items():
        create_table(table, name, num_buckets=2)
        properties = CommitProperties(custom_metadata={"run_id": run_id})
        write_deltalake(
            table.join(name).uri, content, mode="overwrite", commit_properties=properties
        )
    folder = table.join("_runs", run_id)
    check = {"name": "row_change", "found": 0.5, "limit": 0.1, "verdict": "failed", "note": "<b>"}
    report = {"run_id": run_id, "state": "published", "rows_in": 41, "seconds": 2.5}
    write_json(folder.join("report.json"), {**report, "gate": [check]})
    write_json(folder.join("run.json"), {"opened_at": f"2024-03-0{run_id[-1]}T02:00:00+00:00"})


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Shop:
    """40 products, one with a title that attacks the page; see the module."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shop")
    products = list(generate(DemoConfig(num_products=40, picture_size=64, missing_pictures=0.1)))
    products[3] = replace(products[3], title=EVIL, gold=())
    products[4] = replace(products[4], picture=b"not a picture")
    write_products(products, Storage.of(folder / "products.parquet"))
    first = [gold_row(product, "night-1") for product in products]
    evil = {"attribute": "color", "value": "red", "source": "title", "start": 54, "end": 57}
    first[3]["values"] = [{**evil, "normalized": "<b>red</b>", "confidence": 0.5}]
    rows = {"night-1": first, "night-2": second_night(first)}
    for run_id, content in rows.items():
        write_night(Storage.of(folder / "t"), content, run_id)
    for name in SYSTEMS:
        make_model(name, products, folder)
    return Shop(folder, products, rows)
