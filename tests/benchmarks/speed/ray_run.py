"""Through Ray: the nightly job against what its work must cost, and against other pipelines."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from speed.agreement import LEAST_EQUAL, MOST_DIFFERENCE, Agreement, compare
from speed.catalogue import listings
from speed.ray_output import Output, nightly_output, peer_output, steady_rate
from speed.ray_peers import run_daft, run_ray_data
from speed.report import Section
from speed.workbench import Workbench

from pipelines.cluster.connect import connect_cluster
from pipelines.lake.storage import Storage
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyConfig, NightlyRequest
from pipelines.nightly.work.model_folder import ModelFolder
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
        (
            "pipeline",
            "inside",
            "rows",
            "products/s",
            "of limit",
            "ours is",
            "whole run/s",
            "ours is, whole",
            "equal spans",
            "confidence within",
        ),
    )
    size = bench.small.extractor.config.image.size
    products = listings(bench.sizes.ray_rows, size=size, seed=11)
    rows = write_rows(products, bench.folder / "rows")
    few = write_rows(products[: bench.sizes.ray_peer_rows], bench.folder / "few")
    cost = core_seconds(bench)
    limit = (os.cpu_count() or 1) / sum(cost.values())
    with without_gpus():
        connect_cluster()
        nightly, ours = _nightly(bench, rows)
        section.figures = {
            "ray_vs_limit": nightly["products_per_second"] / limit,
            "core_seconds": cost,
            "limit": limit,
            "nightly": nightly,
        }
        _add_nightly(section, nightly, ours)
        for name, start in _peers().items():
            for system, table in (("our Extractor", rows), ("released code", few)):
                _add_peer(section, bench, ours, Peer(name, start, system, table))
    _notes(section, bench)
    return section


@contextmanager
def without_gpus() -> Iterator[None]:
    """Let what starts within see no GPU: all systems of this section run on the cores."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    os.environ[name] = ""
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@dataclass(frozen=True)
class Peer:
    """A pipeline, what is inside, and the rows that it gets."""

    name: str
    start: Callable
    system: str
    rows: Path


def _add_nightly(section: Section, nightly: dict[str, float], ours: Output) -> None:
    rate = nightly["steady"]
    of_limit = rate / section.figures["limit"] if rate else None
    count = len(ours.finished)
    cells = (count, rate, of_limit, None, nightly["whole"], None, None, None)
    section.rows.append(("nightly job", "our Extractor", *cells))


def _add_peer(section: Section, bench: Workbench, ours: Output, peer: Peer) -> None:
    out = bench.folder / f"{peer.name} {peer.system}".replace(" ", "-")
    began = time.monotonic()
    peer.start(peer.system, bench.small_folder, peer.rows, out, batch=bench.sizes.ray_batch_rows)
    seconds = time.monotonic() - began
    theirs = peer_output(out)
    nightly = section.figures["nightly"]
    rate, whole = _rate(theirs), len(theirs.finished) / seconds
    faster = nightly["steady"] / rate if rate and nightly["steady"] else None
    # A start weighs more on fewer rows.
    same_rows = theirs.products == ours.products
    faster_whole = nightly["whole"] / whole if same_rows else None
    found = _compare(section, ours, theirs, peer)
    cores = os.cpu_count() or 1
    if theirs.workers is not None and theirs.workers < cores:
        section.notes.append(
            f"IDLE WORKERS: {peer.name} with {peer.system} used {theirs.workers} of {cores}"
        )
    section.rows.append(
        (
            peer.name,
            peer.system,
            len(theirs.finished),
            rate,
            rate / section.figures["limit"] if rate else None,
            faster,
            whole,
            faster_whole,
            found.equal,
            found.confidence,
        )
    )
    section.figures[f"vs {peer.name}, {peer.system}"] = {
        "times": faster,
        "times_whole": faster_whole,
        "products_per_second": rate,
        "whole": whole,
        "batches": len(set(theirs.finished)),
        "workers": theirs.workers,
        "equal_spans": found.equal,
        "confidence_difference": found.confidence,
    }


def _compare(section: Section, ours: Output, theirs: Output, peer: Peer) -> Agreement:
    """The peer's values beside ours of the same products; says so where they differ."""
    same = ours.of(theirs.products)
    # The released code's confidence is the attribute's score alone: so is ours here.
    is_released = peer.system == "released code"
    found = compare(same.scores if is_released else same.confidences, theirs.confidences)
    if not found.is_close:
        section.notes.append(
            f"NOT AT EQUAL VALUES: {peer.name} with {peer.system}, {found.note()}; expected at "
            f"least {100 * LEAST_EQUAL:.1f}% and at most {MOST_DIFFERENCE}"
        )
    return found


def _rate(output: Output) -> float | None:
    return steady_rate(output.finished, os.cpu_count() or 1)


def _nightly(bench: Workbench, rows: Path) -> tuple[dict[str, Any], Output]:
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
    output = nightly_output(bench.folder / "table")
    figures = {
        # The job's own account, from its first result to its last.
        "products_per_second": summary["efficiency"] * cores / spent,
        "steady": _rate(output),
        "batches": len(set(output.finished)),
        "efficiency": summary["efficiency"],
        "core_seconds": spent,
        "start_seconds": summary["start_seconds"],
        "whole": count / whole,
        "bytes_read_per_row": summary["bytes_read"] / count,
        "bytes_written_per_row": summary["bytes_written"] / count,
    }
    return figures, output


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


def _notes(section: Section, bench: Workbench) -> None:
    nightly, cost = section.figures["nightly"], section.figures["core_seconds"]
    cores = os.cpu_count() or 1
    section.notes += [
        f"limit: {cores} cores / ({1e3 * cost['decode']:.1f} + {1e3 * cost['model']:.1f} ms of "
        "decoding and model per product, measured in this process on one thread)",
        f"products/s: of all alike, from when {cores} batches were done to the last row, by the "
        "workers' clocks; whole run: with the start of actors, the loading of models and, for the "
        f"nightly job, plan and publication; batches of {bench.sizes.ray_batch_rows} rows",
        f"ray_vs_limit {section.figures['ray_vs_limit']:.3g}: the nightly job's core seconds by "
        "those available from its first batch to its last, by its own account",
        "equal spans, confidence: against the nightly job's values of the same products; of the "
        "released code, whose confidence is the attribute's score alone, against our score",
    ]
    if not has_daft():
        section.notes.append("Daft: not installed, not measured (pip install 'daft>=0.7,<0.8')")
    side = bench.small.extractor.config.image.size
    section.notes.append(
        f"bytes per product: {nightly['bytes_read_per_row']:,.0f} read from the table, "
        f"{3 * side * side:,} of pixels through the object store, "
        f"{nightly['bytes_written_per_row']:,.0f} written to the result"
    )
