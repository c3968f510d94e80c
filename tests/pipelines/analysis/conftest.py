"""Small random result tables: real Delta tables, and the same rows as plain dictionaries."""

import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake

from pipelines.lake.storage import Storage
from pipelines.lake.tables import (
    EXTRACTIONS,
    EXTRACTIONS_SCHEMA,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    SPEC,
    bucket_of,
    create_table,
)

NUM_BUCKETS = 3
ATTRIBUTES = ("color", "size", "brand", "type")
WORDS = ("Red", "red", "GREY", "gray", "XL", "x-large", "Acme", "Dots", "\u5927\u7ea2", "=1+1")


def random_value(rng: random.Random) -> dict:
    word = rng.choice(WORDS)
    start = rng.randrange(30)
    return {
        "attribute": rng.choice(ATTRIBUTES),
        "value": word,
        "normalized": rng.choice([None, word.lower()]),
        "source": rng.choice(["title", "description"]),
        "start": start,
        "end": start + len(word),
        "confidence": rng.randrange(65) / 64,
    }


def random_row(rng: random.Random, number: int, run_id: str) -> dict:
    status = rng.choice(["ok", "ok", "ok", "degraded", "quarantined", "vanished"])
    values = [random_value(rng) for _ in range(rng.choice([0, 1, 2, 3, 6]))]
    if status == "quarantined":
        values = rng.choice([[], None])
    product_id = f"p{number:04d}"
    return {
        "product_id": product_id,
        "bucket": bucket_of(product_id, NUM_BUCKETS),
        "status": status,
        "reason": {"degraded": "no_picture", "quarantined": "empty_text"}.get(status),
        "values": values,
        "range": [],
        "input_hash": "h",
        "model_id": "m",
        "run_id": run_id,
        "extracted_at": datetime(2025, 1, 1, tzinfo=UTC),
        "schema_version": 1,
    }


def random_quarantine(rng: random.Random) -> dict:
    return {
        "file": "f.parquet",
        "row_group": 0,
        "row": rng.randrange(100),
        "num_rows": rng.choice([1, 1, 7, None]),
        "product_id": None,
        "reason": rng.choice(["null_id", "duplicate_id", "unreadable_file"]),
        "detail": None,
        "run_id": "r1",
        "quarantined_at": datetime(2025, 1, 1, tzinfo=UTC),
        "schema_version": 1,
    }


@pytest.fixture(scope="session")
def make_rows():
    def make(seed: int, size: int = 60, run_id: str = "r1") -> list[dict]:
        rng = random.Random(seed)
        return [random_row(rng, number, run_id) for number in range(size)]

    return make


@pytest.fixture(scope="session")
def make_quarantine():
    def make(seed: int, size: int = 20) -> list[dict]:
        rng = random.Random(seed)
        return [random_quarantine(rng) for _ in range(size)]

    return make


@pytest.fixture(scope="session")
def publish():
    """Write one state of a table: every call is one more version of `extractions`."""

    def write(folder: Path, rows: list[dict], run_id: str, quarantine: list[dict] = ()) -> str:
        storage = Storage.of(folder)
        contents = {
            EXTRACTIONS: (rows, EXTRACTIONS_SCHEMA),
            QUARANTINE: (list(quarantine), QUARANTINE_SCHEMA),
        }
        for name, (content, schema) in contents.items():
            create_table(storage, name, num_buckets=NUM_BUCKETS)
            if content:
                write_deltalake(
                    storage.join(name).uri,
                    pa.Table.from_pylist(content, schema),
                    mode="overwrite",
                    commit_properties=CommitProperties(custom_metadata={"run_id": run_id}),
                )
        return str(folder)

    return write


@pytest.fixture(scope="session")
def make_products():
    """Products for the rows of `make_rows`, and a few that no extraction knows."""

    def make(seed: int, size: int = 60) -> list[dict]:
        rng = random.Random(seed)
        known = [number for number in range(size + 3) if rng.random() < 0.9]
        return [
            {
                "product_id": f"p{number:04d}",
                "category": rng.choice(["shirts", "shoes", None]),
                "specs": rng.choice([None, random_specs(rng), random_specs(rng)]),
            }
            for number in known
        ]

    return make


def random_specs(rng: random.Random) -> list[dict]:
    attributes = (*ATTRIBUTES, "origin", " color ", "")
    return [
        {"attribute": rng.choice(attributes), "value": rng.choice([*WORDS, "", None])}
        for _ in range(rng.randrange(4))
    ]


@pytest.fixture(scope="session")
def write_products():
    schema = pa.schema(
        [("product_id", pa.string()), ("category", pa.string()), ("specs", pa.list_(SPEC))]
    )

    def write(path: Path, products: list[dict]) -> str:
        pl.DataFrame(pa.Table.from_pylist(products, schema)).write_parquet(path)
        return str(path)

    return write


@pytest.fixture(scope="session")
def assert_answer():
    """The lazy frame gives these rows in this order, on either engine; floats nearly."""

    def check(frame: pl.LazyFrame, expected: list[dict]) -> None:
        for engine in ("in-memory", "streaming"):
            found = frame.collect(engine=engine).to_dicts()
            assert len(found) == len(expected)
            for row, wanted in zip(found, expected, strict=True):
                assert row == pytest.approx(wanted, nan_ok=True)

    return check
