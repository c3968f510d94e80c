"""Through Ray: the nightly job against what its work must cost, and against other pipelines."""

import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from speed.catalogue import listings
from speed.ray_peers import run_daft, run_ray_data, steady_rate
from speed.report import Section
from speed.workbench import Workbench

from pipelines.cluster import connect_cluster
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.model_folder import ModelFolder
from pipelines.nightly.settings import NightlyConfig, NightlyRequest
from pipelines.storage import Storage
from ulsdram_core.schema import Product

FILES = 4


def write_rows(products: list[Product], folder: Path) -> Path:
    """The products table as Parquet, a few files of several row groups."""
    folder.mkdir(parents=True)
    size = -(-len(products) // FILES)
    for number in range(FILES):
        some = products[number * size : (number + 1) * size]
        table = pa.table(
            {
                "product_id": [product.product_id for product in some],
                "title": [product.texts["title"] for product in some],
                "description": [product.texts.get("description") for product in some],
                "image": [product.pictures[0] for product in some],
            },
            schema=pa.schema(
                [
                    ("product_id", pa.string()),
                    ("title", pa.string()),
                    ("description", pa.string()),
                    ("image", pa.binary()),
                ]
            ),
        )
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=128)
    return folder


def core_seconds(bench: Workbench) -> dict[str, float]:
    """Core seconds of a product's decoding and of its model, in this process on one thread."""
    extractor = bench.small.extractor
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    products = bench.small.products
    extractor.extract(products[:8])
    began = time.process_time()
    decoded = [extractor.decode(product) for product in products]
    middle = time.process_time()
    extractor.extract_decoded(decoded)
    ended = time.process_time()
    torch.set_num_threads(threads)
    count = len(products)
    return {"decode": (middle - began) / count, "model": (ended - middle) / count}


def run(bench: Workbench) -> Section:
    """The small model, whose decoding and overheads weigh most."""
    section = Section(
        f"Through Ray, {bench.small.name}",
        ("pipeline", "inside", "rows", "products/s", "whole run", "of limit", "ours is"),
    )
    cores = os.cpu_count() or 1
    cost = core_seconds(bench)
    limit = cores / sum(cost.values())
    size = bench.small.extractor.config.image.size
    products = listings(bench.sizes.ray_rows, size=size, seed=11)
    rows = write_rows(products, bench.folder / "rows")
    few = write_rows(products[: bench.sizes.ray_peer_rows], bench.folder / "few")
    connect_cluster()
    nightly = _nightly(bench, rows)
    rate = nightly["products_per_second"]
    section.rows.append(
        ("nightly job", "our Extractor", len(products), rate, nightly["whole"], rate / limit, None)
    )
    section.figures = {
        "ray_vs_limit": rate / limit,
        "core_seconds": cost,
        "limit": limit,
        "nightly": nightly,
    }
    for name, start in _peers().items():
        for system, table in (("our Extractor", rows), ("released code", few)):
            out = bench.folder / f"{name} {system}".replace(" ", "-")
            began = time.monotonic()
            start(system, bench.small_folder, table, out, batch=bench.sizes.ray_batch_rows)
            whole = time.monotonic() - began
            count, peer_rate = steady_rate(out)
            faster = rate / peer_rate if peer_rate else None
            section.rows.append(
                (name, system, count, peer_rate, count / whole, peer_rate / limit, faster)
            )
            section.figures[f"vs {name}, {system}"] = faster
    _notes(section, cost, cores, bench)
    return section


def _nightly(bench: Workbench, rows: Path) -> dict[str, float]:
    config = NightlyConfig.model_validate(
        {
            "chunks": {
                "batch_rows": bench.sizes.ray_batch_rows,
                "rows": 4 * bench.sizes.ray_batch_rows,
            }
        }
    )
    job = NightlyJob(
        ModelFolder(str(bench.small_folder), num_threads=config.threads_per_model_worker),
        Storage.of(bench.folder / "table"),
        config,
    )
    began = time.monotonic()
    summary = job.run(NightlyRequest((str(rows),)))
    whole = time.monotonic() - began
    count = summary["rows_worked"]
    spent = (summary["decode_core_seconds"] + summary["model_core_seconds"]) / count
    cores = os.cpu_count() or 1
    return {
        # From the first result to the last, as of the peers: starting is paid once a night.
        "products_per_second": summary["efficiency"] * cores / spent,
        "efficiency": summary["efficiency"],
        "core_seconds": spent,
        "start_seconds": summary["start_seconds"],
        "whole": count / whole,
        "bytes_read_per_row": summary["bytes_read"] / count,
        "bytes_written_per_row": summary["bytes_written"] / count,
    }


def _peers() -> dict[str, Callable]:
    cores = os.cpu_count() or 1

    def ray_data(*arguments, **settings) -> None:
        run_ray_data(*arguments, cores=cores, **settings)

    def daft(*arguments, **settings) -> None:
        run_daft(*arguments, cores=cores, **settings)

    peers: dict[str, Callable] = {"Ray Data": ray_data}
    if has_daft():
        peers["Daft"] = daft
    return peers


def has_daft() -> bool:
    """Whether the optional peer is installed."""
    return importlib.util.find_spec("daft") is not None


def _notes(section: Section, cost: dict[str, float], cores: int, bench: Workbench) -> None:
    nightly = section.figures["nightly"]
    section.notes += [
        f"limit: {cores} cores / ({1e3 * cost['decode']:.1f} + {1e3 * cost['model']:.1f} ms of "
        "decoding and model per product, measured in this process on one thread)",
        "products/s: from the first result to the last; whole run: with the start of its actors "
        f"and the loading of models; batches of {bench.sizes.ray_batch_rows} rows everywhere",
    ]
    if not has_daft():
        section.notes.append("Daft: not installed, not measured (pip install 'daft>=0.7,<0.8')")
    side = bench.small.extractor.config.image.size
    section.notes.append(
        f"bytes per product: {nightly['bytes_read_per_row']:,.0f} read from the table, "
        f"{3 * side * side:,} of pixels through the object store, "
        f"{nightly['bytes_written_per_row']:,.0f} written to the result"
    )
