"""Labelled products with decoded pictures: the Ray Data stage, and what reads its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from pipelines.labelled.columns import encoded_pictures
from pipelines.labelled.table import LabelledTable, labelled_rows
from ulsdram_core.image import ImageConfig, decode_usable
from ulsdram_core.schema import Product

PIXELS = "pixels"
BATCH = 256


@dataclass(frozen=True)
class DecodePictures:
    """Ray Data stage: encoded pictures -> `pixels`, list<binary> of uint8 S*S*3; rest unchanged.

    A picture that cannot be decoded is left out, as in extraction; the product stays.
    """

    columns: tuple[str, ...]
    image: ImageConfig

    def __call__(self, rows: pa.Table) -> pa.Table:
        pixels = [self._decode(row) for row in rows.select(list(self.columns)).to_pylist()]
        kept = rows.drop_columns(list(self.columns))
        return kept.append_column(PIXELS, pa.array(pixels, type=pa.list_(pa.binary())))

    def _decode(self, row: Mapping[str, Any]) -> list[bytes]:
        # Prepare has counted those that are left out; extraction goes on without them, too.
        usable, _ = decode_usable(encoded_pictures(row, self.columns), self.image)
        return [pixels.tobytes() for pixels in usable]


def pixel_arrays(cell: Sequence[bytes] | None, size: int) -> tuple[np.ndarray, ...]:
    """Return a `pixels` cell as uint8 [S, S, 3] arrays, without copying."""
    return tuple(np.frombuffer(data, np.uint8).reshape(size, size, 3) for data in cell or ())


def products_with_pixels(
    rows: pa.Table, table: LabelledTable, size: int
) -> list[tuple[Product, tuple[np.ndarray, ...]]]:
    """Turn decoded rows into products and their pixels."""
    return [
        (product, pixel_arrays(row.get(PIXELS), size))
        for product, row in labelled_rows(rows, table.columns, table.sources, table.corrections)
    ]


def decoded_dataset(table: LabelledTable, image: ImageConfig | None) -> ray.data.Dataset:
    """Stream a labelled table with its pictures decoded for a model."""
    return with_pixels(table.dataset(), table, image)


def with_pixels(
    dataset: ray.data.Dataset, table: LabelledTable, image: ImageConfig | None
) -> ray.data.Dataset:
    """Decode the pictures of a table's rows for a model."""
    if image is None or not table.picture_columns:
        return dataset
    stage = DecodePictures(table.picture_columns, image)
    return dataset.map_batches(
        stage, batch_format="pyarrow", batch_size=BATCH, num_cpus=0.5, zero_copy_batch=True
    )


def kept_if_small(dataset: ray.data.Dataset, num_bytes: int, limit: int) -> ray.data.Dataset:
    """Decode a small dataset once, into the object store, instead of in every epoch."""
    if num_bytes > limit:
        return dataset
    # In order: a resumed run must meet the same batches.
    dataset.context.execution_options.preserve_order = True
    return dataset.materialize()
