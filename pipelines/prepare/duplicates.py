"""Product ids that several kept rows share: counted and listed, never dropped here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from pipelines.prepare.staging import ID_HASH, Piece, StagingPlan

_NUM_LISTED = 100


class Duplicates(BaseModel):
    """`rows` that repeat the id of another row, and the first of the ids."""

    rows: int = 0
    ids: int = 0
    listed: list[str] = []


def find_duplicates(pieces: Sequence[Piece], plan: StagingPlan) -> Duplicates:
    """Compare the ids of all pieces, by eight bytes of hash each."""
    hashes = [piece.read(plan.config, ID_HASH)[ID_HASH].to_numpy() for piece in pieces]
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    repeated = values[counts > 1]
    if not len(repeated):
        return Duplicates()
    listed = list(_ids(pieces, plan, repeated[:_NUM_LISTED]))
    rows = int(counts.sum() - len(values))
    return Duplicates(rows=rows, ids=len(repeated), listed=sorted(dict.fromkeys(listed)))


def _ids(pieces: Sequence[Piece], plan: StagingPlan, hashes: np.ndarray) -> Iterator[str]:
    for piece in pieces:
        table = piece.read(plan.config, ID_HASH, "product_id")
        chosen = pc.is_in(table[ID_HASH], pa.array(hashes))
        yield from table["product_id"].filter(chosen).to_pylist()
