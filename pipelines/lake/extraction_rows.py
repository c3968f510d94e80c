"""Rows of an extractions table as extractions, and extractions as rows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from pipelines.lake.frames import collect
from pipelines.lake.tables import EXTRACTIONS_SCHEMA, VALUE_FIELDS
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import AttributeScore, Extraction, Status, Value


class StoredExtraction(NamedTuple):
    """An extraction and the model that made it."""

    extraction: Extraction
    model_id: str | None


def read_extractions(
    extractions: pl.LazyFrame, product_ids: Sequence[str]
) -> dict[str, StoredExtraction]:
    """Return the rows of these products; those that the table lacks are left out."""
    wanted = pl.Series(list(product_ids), dtype=pl.String).implode()
    columns = ("product_id", "status", "reason", "values", "range", "model_id")
    rows = collect(extractions.filter(pl.col("product_id").is_in(wanted)).select(*columns))
    return {
        row["product_id"]: StoredExtraction(extraction_of(row), row["model_id"])
        for row in rows.iter_rows(named=True)
    }


def extraction_of(row: Mapping[str, Any]) -> Extraction:
    """Return a row of the table as an extraction."""
    return Extraction(
        row["product_id"],
        Status(row["status"]),
        None if row["reason"] is None else Reason(row["reason"]),
        tuple(
            Value(**{name: value[name] for name in VALUE_FIELDS}) for value in row["values"] or ()
        ),
        tuple(AttributeScore(e["attribute"], e["score"]) for e in row["range"] or ()),
    )


def extraction_frame(extractions: Sequence[Extraction], *, model_id: str) -> pl.LazyFrame:
    """Return extractions as rows of the table; what only a run knows is null."""
    rows = [
        {
            "product_id": extraction.product_id,
            "status": extraction.status.value,
            "reason": None if extraction.reason is None else extraction.reason.value,
            "values": [
                {name: getattr(value, name) for name in VALUE_FIELDS} for value in extraction.values
            ],
            "range": [
                {"attribute": entry.attribute, "score": entry.score} for entry in extraction.range
            ],
            "model_id": model_id,
        }
        for extraction in extractions
    ]
    frame = pl.from_arrow(pa.Table.from_pylist(rows, EXTRACTIONS_SCHEMA))
    assert isinstance(frame, pl.DataFrame)
    return frame.lazy()
