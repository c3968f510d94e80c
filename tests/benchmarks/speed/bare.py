"""What libraries need for parts of an extraction without anything of ours around them."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ulsdram_core.schema import Extraction, Value

# `decode_picture` lets JPEGs be decoded at a fraction that is still this much larger.
GAP = 1.5


def bare_decode(data: bytes, size: int) -> None:
    """Pillow's decoder at the scale that ours asks for; no resizing, no checks, no array."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft(None, (int(size * GAP),) * 2)
        picture.load()


def bare_values(extractions: Sequence[Extraction]) -> list[list[Value]]:
    """The values made anew from what is in them."""
    return [
        [Value(v.attribute, v.value, v.source, v.start, v.end, v.confidence) for v in e.values]
        for e in extractions
    ]


def bare_parquet(table: pa.Table) -> None:
    """The table as one row group, in memory."""
    pq.write_table(table, pa.BufferOutputStream(), compression="zstd")
