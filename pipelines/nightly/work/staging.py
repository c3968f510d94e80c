"""What waves have extracted, before it is published: one Parquet file and one marker per wave.

Workers return rows to the driver, which alone writes; so there are no strays and no double counts.
A wave's file has one row group per bucket. Its marker is put after it and names file and rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lake.digests import from_hex
from pipelines.lake.documents import read_json, write_json
from pipelines.lake.storage import Storage, retrying
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
    """Extractions in the schema of the extractions table; `normalizer` fills what the model left.

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


@dataclass(slots=True)
class Staging:
    """The staging folder of a run. `waves` maps (generation, wave) to file and rows."""

    place: Storage
    waves: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    vectors: tuple[str, ...] = ()

    @staticmethod
    def open(run: Storage, vectors: Sequence[str] = ()) -> "Staging":
        """With the waves that are done already."""
        staging = Staging(run.join("staging"), vectors=tuple(vectors))
        for name in staging.place.names():
            if name.endswith(".json"):
                found = read_json(staging.place.join(name))
                assert found is not None
                staging.waves[found["generation"], found["wave"]] = found["path"], found["rows"]
        return staging

    @property
    def num_rows(self) -> int:
        """Rows of all finished waves."""
        return sum(rows for _, rows in self.waves.values())

    def write_wave(self, generation: int, wave: int, rows: pa.Table) -> None:
        """Put the file of a wave; `mark_wave` makes it count."""
        place = self.place.join(f"{_wave_name(generation, wave)}.parquet")
        content = _by_bucket(rows)
        retrying(lambda: place.write_bytes(content))

    def mark_wave(self, generation: int, wave: int, rows: int) -> None:
        """Declare a wave done."""
        name = _wave_name(generation, wave)
        path = f"{name}.parquet"
        marker = {"generation": generation, "wave": wave, "path": path, "rows": rows}
        retrying(lambda: write_json(self.place.join(f"{name}.json"), marker))
        self.waves[generation, wave] = path, rows

    def read(self, bucket: int) -> pa.Table:
        """All staged rows of a bucket; the newest wave last."""
        tables = [extractions_schema(self.vectors).empty_table()]
        for key in sorted(self.waves):
            path, _ = self.waves[key]
            tables += self._read(path, bucket)
        return pa.concat_tables(tables)

    def keys(self, bucket: int, *, model_id: str) -> pl.DataFrame | None:
        """id and hash of the staged rows of a bucket that this model extracted."""
        if not self.waves:
            return None
        rows = self.read(bucket).select(["product_id", "input_hash", "model_id"])
        rows = rows.filter(pc.equal(rows["model_id"], model_id))
        return key_frame(rows)

    def _read(self, path: str, bucket: int) -> list[pa.Table]:
        place = self.place.join(path)

        def read() -> list[pa.Table]:
            with place.arrow.open_input_file(place.path) as stream:
                parquet = pq.ParquetFile(stream)
                buckets = parquet.schema_arrow.metadata[b"ulsdram.buckets"].split()
                groups = [i for i, found in enumerate(buckets) if int(found) == bucket]
                return [parquet.read_row_group(i, use_threads=False) for i in groups]

        return [table.cast(extractions_schema(self.vectors)) for table in retrying(read)]


def key_frame(rows: pa.Table) -> pl.DataFrame:
    """id and hash halves of rows of the extractions table."""
    ids = id_hashes(rows["product_id"].to_pylist())
    hashes = from_hex(rows["input_hash"].to_pylist())
    halves = (*ids.T, *hashes.T)
    return pl.DataFrame(dict(zip(("id_hi", "id_lo", "hash_hi", "hash_lo"), halves, strict=True)))


def _wave_name(generation: int, wave: int) -> str:
    return f"wave-{generation:04d}-{wave:06d}"


def _by_bucket(rows: pa.Table) -> bytes:
    """Parquet with one row group per bucket; the schema's metadata names the buckets."""
    rows = rows.sort_by([("bucket", "ascending"), ("product_id", "ascending")])
    buckets, starts = np.unique(rows["bucket"].to_numpy(), return_index=True)
    names = " ".join(map(str, buckets)).encode()
    schema = rows.schema.with_metadata({b"ulsdram.buckets": names})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
            part = rows.slice(start, end - start).replace_schema_metadata(schema.metadata)
            writer.write_table(part, row_group_size=max(1, int(end - start)))
    return sink.getvalue().to_pybytes()
