"""Nearest products in a table of vectors: exact, bucket by bucket, in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage
from pipelines.lake.tables import VECTORS, bucket_of
from ulsdram_core.schema import Status

BLOCK_ROWS = 65_536
_COLUMNS = ("product_id", "status")


@dataclass(frozen=True)
class VectorTable:
    """The newest version of a table that jobs/embed_catalog.py wrote."""

    snapshot: Snapshot

    @staticmethod
    def open(output: Storage) -> "VectorTable":
        """Return the newest version of the table; ValueError where there is none."""
        snapshot = Snapshot.newest(output, num_buckets=1)
        if snapshot.delta is None or not set(VECTORS) <= set(snapshot.vectors):
            raise ValueError(
                f"found no vectors at {output.uri}, expected the --output of jobs/embed_catalog.py"
            )
        return VectorTable(snapshot)

    def vectors(self, product_ids: Sequence[str], *, column: str = "joint_vector") -> np.ndarray:
        """Return [N, E] vectors of these products; ValueError names one that has none."""
        found: dict[str, np.ndarray] = {}
        wanted = set(product_ids)
        for bucket in sorted({bucket_of(i, self.snapshot.num_buckets) for i in wanted}):
            for ids, block in self._blocks(bucket, column):
                rows = zip(ids, block, strict=True)
                found.update((name, vector) for name, vector in rows if name in wanted)
        for name in product_ids:
            if name not in found:
                raise ValueError(f"product {name!r} has no {column}; check the id")
        return np.stack([found[name] for name in product_ids])

    def nearest(self, queries: np.ndarray, *, k: int, column: str = "joint_vector") -> pl.DataFrame:
        """Return `query, rank, product_id, similarity` of the k most similar products a query row.

        Vanished and quarantined products are no answers; a product finds itself.
        """
        scores = np.full((len(queries), 0), 0.0, np.float32)
        names = np.full((len(queries), 0), "", object)
        for bucket in range(self.snapshot.num_buckets):
            for ids, block in self._blocks(bucket, column):
                scores = np.concatenate([scores, queries @ block.T], axis=1)
                ids_here = np.broadcast_to(ids, (len(queries), len(ids)))
                names = np.concatenate([names, ids_here], axis=1)
                best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
                scores = np.take_along_axis(scores, best, 1)
                names = np.take_along_axis(names, best, 1)
        rows, ranks = np.indices(scores.shape)
        return pl.DataFrame(
            {
                "query": rows.ravel(),
                "rank": ranks.ravel() + 1,
                "product_id": pl.Series(names.ravel().tolist(), dtype=pl.String),
                "similarity": scores.ravel(),
            }
        )

    def _blocks(self, bucket: int, column: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if column not in VECTORS:
            raise ValueError(f"found column {column!r}, expected one of {', '.join(VECTORS)}")
        table = self.snapshot.bucket(bucket).read([*_COLUMNS, column])
        here = pc.is_in(table["status"], pa.array([Status.OK.value, Status.DEGRADED.value]))
        table = table.filter(pc.and_(here, pc.is_valid(table[column])))
        for batch in table.to_batches(max_chunksize=BLOCK_ROWS):
            if batch.num_rows:
                flat = batch.column(column).flatten().to_numpy(zero_copy_only=False)
                yield (
                    np.array(batch.column("product_id").to_pylist(), object),
                    flat.reshape(batch.num_rows, -1),
                )
