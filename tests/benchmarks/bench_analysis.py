"""Time and peak memory of every query on a synthetic table, each in a process of its own.

python tests/benchmarks/bench_analysis.py --rows 1000000
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import polars as pl
from deltalake import CommitProperties, write_deltalake

from pipelines.analysis.output import write
from pipelines.analysis.request import QUERIES, Request, answer
from pipelines.analysis.results import table
from pipelines.analysis.review import least_certain
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, EXTRACTIONS_SCHEMA, QUARANTINE, create_table

NUM_BUCKETS = 64
NUM_ATTRIBUTES = 100
NUM_WORDS = 2_000
VALUES_PER_ROW = 5
NUM_CATEGORIES = 200
BASELINE = "open"  # imports and opening the table, no query
REVIEW = "review-queue"


def synthetic(first: int, size: int, *, seed: int, run_id: str) -> pl.DataFrame:
    """`size` products with 0 to 10 values each, a few statuses, skewed attributes and words."""
    rng = np.random.default_rng(seed + first)
    counts = rng.integers(0, 2 * VALUES_PER_ROW + 1, size)
    total = int(counts.sum())
    attribute = (NUM_ATTRIBUTES * rng.random(total) ** 2).astype(np.int64)
    word = (NUM_WORDS * rng.random(total) ** 3).astype(np.int64)
    values = pl.DataFrame(
        {
            "row": np.repeat(np.arange(size), counts),
            "attribute": attribute,
            "word": word,
            "start": rng.integers(0, 80, total).astype(np.int32),
            "confidence": rng.random(total).astype(np.float32),
        }
    ).select(
        "row",
        values=pl.struct(
            attribute=pl.format("attribute {}", "attribute"),
            value=pl.format("Word {}", "word"),
            normalized=pl.format("word {}", "word"),
            source=pl.lit("title"),
            start="start",
            end=pl.col("start") + 8,
            confidence="confidence",
        ),
    )
    lists = values.group_by("row", maintain_order=True).agg("values")
    status = np.array(["ok", "degraded", "quarantined", "vanished"])
    chosen = status[np.searchsorted([0.90, 0.97, 0.99], rng.random(size))]
    products = pl.DataFrame({"row": np.arange(size), "status": chosen})
    reason = {"degraded": "no_picture", "quarantined": "empty_text"}
    return products.join(lists, on="row", how="left", maintain_order="left").select(
        product_id=pl.format("product-{}", pl.col("row") + first),
        bucket=(pl.col("row") % NUM_BUCKETS).cast(pl.Int32),
        status="status",
        reason=pl.col("status").replace_strict(reason, default=None),
        values=pl.col("values").fill_null([]),
        range=pl.lit(None, dtype=pl.List(pl.Struct({"attribute": pl.String, "score": pl.Float32}))),
        input_hash=pl.lit("hash"),
        model_id=pl.lit("model"),
        run_id=pl.lit(run_id),
        extracted_at=pl.lit(0).cast(pl.Datetime("us", "UTC")),
        schema_version=pl.lit(1, dtype=pl.Int32),
    )


def synthetic_products(first: int, size: int) -> pl.DataFrame:
    """Category and up to four specs of the products."""
    rng = np.random.default_rng(first + 77)
    counts = rng.integers(0, 5, size)
    total = int(counts.sum())
    specs = pl.DataFrame(
        {
            "row": np.repeat(np.arange(size), counts),
            "attribute": (NUM_ATTRIBUTES * rng.random(total) ** 2).astype(np.int64),
            "word": (NUM_WORDS * rng.random(total) ** 3).astype(np.int64),
        }
    ).select(
        "row",
        specs=pl.struct(
            attribute=pl.format("attribute {}", "attribute"), value=pl.format("word {}", "word")
        ),
    )
    products = pl.DataFrame(
        {"row": np.arange(size), "category": rng.integers(0, NUM_CATEGORIES, size)}
    )
    lists = specs.group_by("row", maintain_order=True).agg("specs")
    return products.join(lists, on="row", how="left", maintain_order="left").select(
        product_id=pl.format("product-{}", pl.col("row") + first),
        category=pl.format("category {}", "category"),
        specs=pl.col("specs").fill_null([]),
    )


def prepare(folder: Path, num_rows: int, chunk: int = 250_000) -> None:
    """Two nights of a table, and its products."""
    place = Storage.of(folder / "t")
    create_table(place, EXTRACTIONS, num_buckets=NUM_BUCKETS)
    create_table(place, QUARANTINE, num_buckets=NUM_BUCKETS)
    (folder / "products").mkdir()
    for night, run_id in enumerate(("night-1", "night-2")):
        for first in range(0, num_rows, chunk):
            size = min(chunk, num_rows - first)
            frame = synthetic(first, size, seed=night * 10**6, run_id=run_id)
            write_deltalake(
                place.join(EXTRACTIONS).uri,
                frame.to_arrow().cast(EXTRACTIONS_SCHEMA),
                mode="overwrite" if first == 0 else "append",
                commit_properties=CommitProperties(custom_metadata={"run_id": run_id}),
            )
            if night == 0:
                path = folder / "products" / f"{first:012d}.parquet"
                synthetic_products(first, size).write_parquet(path)


def measure(folder: Path, query: str) -> dict:
    """One query in this process: seconds, rows, peak memory in MB."""
    opened = table(folder / "t", products=folder / "products")
    started, started_cpu = time.monotonic(), time.process_time()
    num_rows = 0
    if query == REVIEW:
        num_rows = least_certain(opened, limit=1000, per_attribute=50).height
    elif query != BASELINE:
        name, _, variant = query.partition(":")
        request = Request(query=name, since="night-1", by_category=variant == "category")
        out = Storage.of(folder / "answer.parquet")
        num_rows = write(answer(opened, request), out=out, kind="parquet")
    # not ru_maxrss: a child starts with its parent's peak there
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {
        "query": query,
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(time.process_time() - started_cpu, 2),
        "rows": num_rows,
        "peak_mb": int(peak[1]) // 1024 if peak else 0,
    }


def main() -> None:
    """Prepare once, then one process per query; a JSON line comes last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="products in the table")
    options.add_argument("--folder", help="keep the synthetic tables here, reuse them if present")
    options.add_argument("--measure", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.folder), args.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        if not (folder / "t").exists():
            folder.mkdir(parents=True, exist_ok=True)
            prepare(folder, args.rows)
        results = []
        queries = [BASELINE, *QUERIES, "coverage:category", "fill-gain:category", REVIEW]
        for query in queries:
            done = subprocess.run(
                [sys.executable, __file__, "--folder", str(folder), "--measure", query],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            results.append(json.loads(done.stdout.splitlines()[-1]))
            line = results[-1]
            times = f"{line['seconds']:8.2f} s {line['cpu_seconds']:8.2f} cpu s"
            print(f"{query:20} {times} {line['peak_mb']:7d} MB  {line['rows']} rows")
    print(json.dumps({"rows": args.rows, "results": results}))


if __name__ == "__main__":
    main()
