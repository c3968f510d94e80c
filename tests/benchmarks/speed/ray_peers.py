"""The same work as others would set it up: Ray Data as its documentation shows, and Daft.

Each system is a class with everything in it, used by an actor per core; what it returns is one row
per product, with the time when its batch was done.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from speed.released import ReleasedPipeline

from ulsdram_core.checkpoint import load_model
from ulsdram_core.extractor import Extractor
from ulsdram_core.schema import Product, Value

COLUMNS = ("product_id", "title", "description", "image")


class ReleasedSystem:
    """The released code, plainly."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self._pipeline = ReleasedPipeline(load_model(folder))

    def values(self, products: Sequence[Product]) -> Sequence[Sequence[Value]]:
        """The values of each product."""
        return self._pipeline.extract(products)


class OurSystem:
    """Our extractor in somebody else's pipeline."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self._extractor = Extractor.load(folder, device="cpu")

    def values(self, products: Sequence[Product]) -> Sequence[Sequence[Value]]:
        """The values of each product."""
        return [extraction.values for extraction in self._extractor.extract(products)]


SYSTEMS = {"released code": ReleasedSystem, "our Extractor": OurSystem}


def as_products(columns: dict[str, Sequence]) -> list[Product]:
    """Rows of the products table."""
    rows = zip(*(columns[name] for name in COLUMNS), strict=True)
    return [
        Product(str(key), {"title": title, "description": description or ""}, (bytes(image),))
        for key, title, description, image in rows
    ]


def as_text(values: Sequence[Value]) -> str:
    """Values of one product as a plain script would store them."""
    return json.dumps(
        [[v.attribute, v.value, v.source, v.start, v.end, v.confidence] for v in values]
    )


class RayDataActor:
    """A callable class for `map_batches`."""

    def __init__(self, system: str, folder: str) -> None:
        self._system = SYSTEMS[system](folder)

    def __call__(self, batch: dict) -> dict:
        """Rows in, rows out."""
        values = self._system.values(as_products(batch))
        return {
            "product_id": batch["product_id"],
            "values": [as_text(row) for row in values],
            "finished": [time.time()] * len(values),
            "worker": [os.getpid()] * len(values),
        }


def run_ray_data(
    system: str, model: Path, rows: Path, out: Path, *, batch: int, cores: int
) -> None:
    """read_parquet -> repartition -> map_batches(class) -> write_parquet."""
    import ray

    dataset = ray.data.read_parquet(str(rows), override_num_blocks=4 * cores)
    # Small blocks would otherwise go to one actor together, and all others would idle.
    dataset = dataset.select_columns(list(COLUMNS)).repartition(target_num_rows_per_block=batch)
    dataset = dataset.map_batches(
        RayDataActor,
        fn_constructor_args=(system, str(model)),
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=cores),
        # Whole cores for the actors would leave none for reading on a small cluster.
        num_cpus=0.5,
    )
    dataset.write_parquet(str(out))


def run_daft(system: str, model: Path, rows: Path, out: Path, *, batch: int, cores: int) -> None:
    """read_parquet -> a class UDF -> write_parquet."""
    import daft

    result = daft.DataType.struct(
        {
            "values": daft.DataType.string(),
            "finished": daft.DataType.float64(),
            "worker": daft.DataType.int64(),
        }
    )

    @daft.cls(max_concurrency=cores, use_process=True)
    class DaftSystem:
        def __init__(self, name: str, folder: str) -> None:
            self._system = SYSTEMS[name](folder)

        @daft.method.batch(return_dtype=result, batch_size=batch)
        def extract(self, product_id, title, description, image):
            series = (product_id, title, description, image)
            columns = {n: s.to_pylist() for n, s in zip(COLUMNS, series, strict=True)}
            values = self._system.values(as_products(columns))
            same = {"finished": time.time(), "worker": os.getpid()}
            return [{"values": as_text(row), **same} for row in values]

    frame = daft.read_parquet(f"{rows}/*.parquet")
    found = DaftSystem(system, str(model)).extract(*(daft.col(name) for name in COLUMNS))
    frame = frame.select(daft.col("product_id"), found.alias("found"))
    frame.write_parquet(str(out))
