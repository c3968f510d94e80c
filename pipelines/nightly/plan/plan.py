"""A stored plan: which rows a run has to publish, and which of them to extract.

`plan-<generation>/` of a run holds, bucket by bucket, the rows that must come out of the run
(`accepted-*.arrow`: id, hash, order) and the products that vanished, the quarantine entries, the
row numbers to extract in `work.arrow` (WORK_ROWS a batch), and at last `plan.json`.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.documents import read_json, write_json
from pipelines.lake.inputs import InputFile, listing_fingerprint
from pipelines.lake.storage import Storage, retrying
from pipelines.lake.uris import without_secrets
from pipelines.nightly.plan.quarantine import ENTRY_SCHEMA
from pipelines.nightly.plan.scan import FileSummary, PlannedFile, RowMap

WORK_ROWS = 100_000


@dataclass(slots=True)
class PlanCounts:
    """Rows by what happens to them. rows_in is the sum of those that follow up to `deferred`."""

    rows_in: int = 0
    extract: int = 0  # staged ones included
    unchanged: int = 0
    keyless: int = 0
    duplicates: int = 0
    unreadable: int = 0  # rows of unusable files and row groups, as far as known
    bad_lines: int = 0
    deferred: int = 0  # left for another run by --limit
    staged: int = 0  # of extract: done by an earlier attempt of this run
    vanished: int = 0
    unreadable_files: int = 0
    unreadable_row_groups: int = 0
    files: int = 0
    files_scanned: int = 0
    bytes_scanned: int = 0
    bytes_to_read: int = 0

    def is_balanced(self) -> bool:
        """Return whether every row is accounted for exactly once."""
        parts = (self.extract, self.unchanged, self.keyless, self.duplicates, self.unreadable)
        return self.rows_in == sum(parts) + self.bad_lines + self.deferred


@dataclass(slots=True)
class Plan:
    """A stored plan; `place` is its folder.

    `files` are read, `listing` stands for those that were listed: not the same on a night over the
    change feed. `feed`: where the input stood, for the next night.
    """

    generation: int
    files: list[PlannedFile]
    num_buckets: int
    counts: PlanCounts
    last_order: int | None = None  # rows after it were deferred
    is_complete: bool = True  # every listed byte was readable and no row was deferred
    place: Storage | None = None
    listing: str = ""
    feed: dict[str, Any] | None = None
    rows: RowMap = field(init=False)

    def __post_init__(self) -> None:
        self.rows = RowMap(self.files)

    def is_for(self, files: Sequence[InputFile]) -> bool:
        """Return whether it holds for a listing; what it could not read is worth another try."""
        is_same = self.listing == listing_fingerprint(files)
        is_same &= all(file.uri == without_secrets(file.uri) for file in files)  # see _stored
        return is_same and not any(planned.summary.is_spoiled for planned in self.files)

    @property
    def is_by_feed(self) -> bool:
        """Whether the files are changed rows of an input, not the input."""
        return self.listing != listing_fingerprint([planned.file for planned in self.files])

    def next_feed(self) -> dict[str, Any] | None:
        """Return where the next night's feed begins; None unless all input rows are known."""
        counts = self.counts
        is_whole = self.is_complete and counts.rows_in == counts.extract + counts.unchanged
        return self.feed if is_whole else None

    def accepted(self, bucket: int) -> pl.DataFrame:
        """Return id, hash and order of the rows that this run must publish in a bucket."""
        frame = self._frame(f"accepted-{bucket:05d}.arrow")
        if self.last_order is None:
            return frame
        return frame.filter(pl.col("order") <= self.last_order)

    def vanished(self, bucket: int) -> pl.DataFrame:
        """Return ids to mark as vanished; none when the listing was not complete."""
        frame = self._frame(f"vanished-{bucket:05d}.arrow")
        return frame if self.is_complete else frame.clear()

    def quarantine(self) -> pa.Table:
        """Return all quarantine entries (ENTRY_SCHEMA)."""
        place = self._folder().join("quarantine.parquet")
        return pq.read_table(place.path, filesystem=place.arrow).cast(ENTRY_SCHEMA)

    def touched(self) -> list[int]:
        """Return buckets in which the plan changes something."""
        found = []
        for name in self._folder().names():
            kind, _, number = name.removesuffix(".arrow").partition("-")
            if kind == "accepted" or (kind == "vanished" and self.is_complete):
                found.append(int(number))
        return sorted(set(found))

    def drop(self) -> None:
        """Make the stored plan incomplete, so that it is not used again."""
        self._folder().join("plan.json").delete()

    def store(self) -> None:
        """Put `plan.json`, which makes the plan exist."""
        write_json(self._folder().join("plan.json"), _to_json(self))

    def _frame(self, name: str) -> pl.DataFrame:
        place = self._folder().join(name)
        try:
            data = retrying(place.read_bytes)
        except FileNotFoundError:
            if name in self._folder().names():  # only not found for a moment: no empty bucket
                raise
            return pl.DataFrame(
                schema=dict.fromkeys(("id_hi", "id_lo", "hash_hi", "hash_lo"), pl.UInt64)
                | {"order": pl.Int64}
            )
        return pl.read_ipc(io.BytesIO(data))

    def _folder(self) -> Storage:
        assert self.place is not None, "a plan that was only estimated has no folder"
        return self.place


def read_work(folder: Storage, start: int, end: int) -> np.ndarray:
    """Return sorted numbers of the rows at these positions of the work list of a plan's folder."""

    def read() -> np.ndarray:
        place = folder.join("work.arrow")
        with place.arrow.open_input_file(place.path) as stream:
            reader = pa.ipc.open_file(stream)
            batches = range(start // WORK_ROWS, -(-end // WORK_ROWS))
            found = [reader.get_batch(i).column(0).to_numpy() for i in batches]
        first = start // WORK_ROWS * WORK_ROWS
        return np.concatenate([np.zeros(0, np.int64), *found])[start - first : end - first]

    return retrying(read)


def load_newest_plan(place: Storage) -> Plan | None:
    """Return the last complete plan of a run."""
    for name in reversed([name for name in place.names() if name.startswith("plan-")]):
        found = read_json(place.join(name, "plan.json"))
        if found is not None:
            plan = _from_json(found)
            plan.place = place.join(name)
            return plan
    return None


def _to_json(plan: Plan) -> Mapping[str, Any]:
    return {
        "generation": plan.generation,
        "num_buckets": plan.num_buckets,
        "last_order": plan.last_order,
        "is_complete": plan.is_complete,
        "listing": plan.listing,
        "feed": plan.feed,
        "counts": asdict(plan.counts),
        "files": [{"file": _stored(p.file), "summary": asdict(p.summary)} for p in plan.files],
    }


def _stored(file: InputFile) -> Mapping[str, Any]:
    """Hide the secrets of its URI: a plan over such files is made again, not continued."""
    return {**asdict(file), "uri": without_secrets(file.uri)}


def _from_json(found: Mapping[str, Any]) -> Plan:
    files = []
    for item in found["files"]:
        partitions = tuple((name, value) for name, value in item["file"].pop("partitions"))
        file = InputFile(**item["file"], partitions=partitions)
        files.append(PlannedFile(file, FileSummary.of(item["summary"])))
    names = ("generation", "num_buckets", "last_order", "is_complete", "listing", "feed")
    counts = PlanCounts(**found["counts"])
    return Plan(files=files, counts=counts, **{name: found[name] for name in names})
