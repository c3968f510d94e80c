"""What becomes of every row: its catalogue id, its split, and its place in the output.

Listings of one product lie together, as training looks for them among neighbours only. Products
are ordered by a hash of the first listing's id, which shuffles them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.lake.tables import id_digest
from pipelines.prepare.pairs.catalogs import Groups
from pipelines.prepare.pairs.duplicates import StoredTraces
from pipelines.prepare.pairs.scan import GroupTask
from pipelines.prepare.pairs.spread import VERDICT
from pipelines.prepare.title_groups import SPLITS


@dataclass(frozen=True)
class Verdicts:
    """Arrays over all rows [N], and the files that the output consists of."""

    reasons: np.ndarray
    labels: np.ndarray
    names: dict[int, str]
    """Catalogue ids of groups by label."""
    splits: np.ndarray
    """[N] number in SPLITS."""
    places: np.ndarray
    """[N] place in the output of the split; -1 for rows that are left out."""
    buckets: np.ndarray
    """[N] number in `files`; -1 for rows that are left out."""
    files: list[str]
    """Paths of the output files, one per bucket."""

    def table(self, groups: Sequence[GroupTask]) -> pa.Table:
        """Return the verdict over consecutive row groups, as rows of VERDICT."""
        start, end = groups[0].first_row, groups[-1].first_row + groups[-1].num_rows
        traces = StoredTraces(tuple(group.traces for group in groups), end - start)
        catalogs = [
            name for _, names in _catalogs(traces, self.labels, self.names) for name in names
        ]
        splits = [SPLITS[number] for number in self.splits[start:end]]
        columns = (self.buckets[start:end], self.places[start:end])
        reasons = list(self.reasons[start:end])
        arrays = [pa.array(values) for values in (reasons, catalogs, splits, *columns)]
        arrays = [array.cast(kind) for array, kind in zip(arrays, VERDICT.types, strict=True)]
        return pa.table(arrays, schema=VERDICT)


def decide(
    tasks: Sequence[GroupTask],
    groups: Groups,
    reasons: np.ndarray,
    *,
    valid_share: float,
    file_bytes: int,
) -> Verdicts:
    """Return verdicts over all rows; `reasons` [N] says why one is left out, "" for the others."""
    labels = groups.labels
    traces = StoredTraces(tuple(task.traces for task in tasks), len(labels))
    names = _group_names(traces, labels)
    splits = np.zeros(len(labels), np.int8)
    hashes = np.zeros(len(labels), np.uint64)
    for batch, catalogs in _catalogs(traces, labels, names):
        rows = batch["row"]
        hashes[rows] = batch["id_hash"]
        splits[rows] = _made_splits(batch["id_hash"], catalogs, valid_share)
    for task in tasks:
        if task.split:
            splits[task.first_row : task.first_row + task.num_rows] = SPLITS.index(task.split)
    places = np.full(len(labels), -1)
    buckets = np.full(len(labels), -1, np.int32)
    files: list[str] = []
    kept = np.flatnonzero(reasons == "")
    kept = kept[np.lexsort((kept, labels[kept], hashes[labels[kept]], splits[kept]))]
    # Rows that are left out may be the small ones.
    row_bytes = sum(task.num_bytes for task in tasks) / max(1, len(kept))
    for number, split in enumerate(SPLITS):
        rows = kept[splits[kept] == number]
        num_files = -int(-len(rows) * row_bytes // file_bytes)
        places[rows] = np.arange(len(rows))
        buckets[rows] = len(files) + places[rows] * num_files // max(1, len(rows))
        files += [f"{split}/part-{file:05d}.parquet" for file in range(num_files)]
    return Verdicts(reasons, labels, names, splits, places, buckets, files)


def _group_names(traces: StoredTraces, labels: np.ndarray) -> dict[int, str]:
    """Return catalogue ids of groups: the first given to a member, else one of the first row."""
    sizes = np.bincount(labels, minlength=len(labels))
    given: dict[int, str] = {}
    made: dict[int, str] = {}
    for batch in traces.batches(("row", "id_hash", "catalog_id")):
        found = labels[batch["row"]]
        for place in np.flatnonzero(sizes[found] > 1):
            label, row = int(found[place]), int(batch["row"][place])
            if batch["catalog_id"][place] is not None:
                given.setdefault(label, str(batch["catalog_id"][place]))
            if label == row:
                made[label] = f"auto-{int(batch['id_hash'][place]):016x}"
    return made | given


def _catalogs(
    traces: StoredTraces, labels: np.ndarray, names: dict[int, str]
) -> Iterator[tuple[dict[str, np.ndarray], list[str | None]]]:
    """Yield batches of traces, with the rows' catalogue ids: the given one, else the group's."""
    for batch in traces.batches(("row", "id_hash", "catalog_id")):
        given, found = batch["catalog_id"], labels[batch["row"]].tolist()
        yield (
            batch,
            [
                names.get(label) if own is None else own
                for own, label in zip(given, found, strict=True)
            ],
        )


def _made_splits(
    id_hashes: np.ndarray, catalogs: Sequence[str | None], valid_share: float
) -> np.ndarray:
    """Return [n] numbers in SPLITS, for an input without; listings of a product stay together."""
    hashes = id_hashes.copy()
    for place, catalog in enumerate(catalogs):
        if catalog:
            hashes[place] = int.from_bytes(id_digest(catalog)[:8], "little")
    is_valid = hashes / 2**64 < valid_share
    return np.where(is_valid, SPLITS.index("valid"), SPLITS.index("train"))
