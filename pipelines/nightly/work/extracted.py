"""Extractions as rows of the extractions table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from pipelines.lake.tables import SCHEMA_VERSION, VALUE, extractions_schema, id_hashes
from pipelines.normalization.normalizer import Normalizer
from ulsdram_core.schema import Extraction

_VALUE_FIELDS = tuple(VALUE.field(i).name for i in range(VALUE.num_fields))


@dataclass(frozen=True, slots=True)
class RowStamp:
    """Columns that are equal for all rows of a run."""

    model_id: str
    run_id: str
    num_buckets: int
    vectors: tuple[str, ...] = ()


def rows_table(
    extractions: Sequence[Extraction],
    hashes: Sequence[str],
    stamp: RowStamp,
    *,
    normalizer: Normalizer | None = None,
) -> pa.Table:
    """Return extractions as rows of the extractions table; `normalizer` fills what the model left.

    A value that the model has normalized itself stays as it is.
    """
    assert len(extractions) == len(hashes), (len(extractions), len(hashes))
    ids = [item.product_id for item in extractions]
    count = len(ids)
    buckets = id_hashes(ids)[:, 0] % stamp.num_buckets
    columns = {
        "product_id": ids,
        "bucket": pa.array(buckets.astype(np.int32)),
        "status": [item.status.value for item in extractions],
        "reason": [item.reason and item.reason.value for item in extractions],
        "values": [_value_rows(item, normalizer) for item in extractions],
        "range": [
            [{"attribute": s.attribute, "score": s.score} for s in e.range] for e in extractions
        ],
        "input_hash": list(hashes),
        "model_id": [stamp.model_id] * count,
        "run_id": [stamp.run_id] * count,
        "extracted_at": [datetime.now(UTC)] * count,
        "schema_version": [SCHEMA_VERSION] * count,
        # Rows that never reached the model have none.
        **{name: [getattr(item, name, None) for item in extractions] for name in stamp.vectors},
    }
    return pa.table(columns, schema=extractions_schema(stamp.vectors))


def _value_rows(item: Extraction, normalizer: Normalizer | None) -> list[dict[str, object]]:
    rows = [{name: getattr(value, name) for name in _VALUE_FIELDS} for value in item.values]
    for row, value in zip(rows, item.values, strict=True):
        if normalizer is not None and value.normalized is None:
            row["normalized"] = normalizer.normalize(value.value, value.attribute)
    return rows
