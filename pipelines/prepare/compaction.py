"""Second stage: staged pieces of a split become files of even size, in input order."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipelines.prepare.staging import Piece, StagingPlan
from pipelines.prepare.title_groups import SPLITS
from pipelines.prepare.writing import RowGroupWriter

_ROWS_AT_ONCE = 4096


class OutputFile(BaseModel):
    """One file to write: the pieces it takes, in order."""

    model_config = ConfigDict(frozen=True)

    split: str
    name: str
    pieces: tuple[Piece, ...]

    @property
    def num_rows(self) -> int:
        """Rows that the file must have in the end."""
        return sum(piece.num_rows for piece in self.pieces)


class WrittenFile(BaseModel):
    """One file as written, from its footer."""

    split: str
    name: str
    num_rows: int
    num_bytes: int
    row_group_bytes: list[int]


def plan_files(pieces: Iterable[Piece], *, file_bytes: int) -> list[OutputFile]:
    """Return pieces in input order, in files of about `file_bytes`; every split gets a file."""
    files = []
    ordered = sorted(pieces, key=lambda piece: piece.shard)
    for split in SPLITS:
        own = [piece for piece in ordered if piece.split == split]
        for number, group in enumerate(_grouped(own, file_bytes)):
            name = f"part-{number:05d}.parquet"
            files.append(OutputFile(split=split, name=name, pieces=tuple(group)))
    return files


def write_file(file: OutputFile, plan: StagingPlan) -> WrittenFile:
    """Copy the pieces' rows into one file; a task that runs again writes the same file again."""
    schema = plan.output_schema()
    place = plan.output.join(file.split, file.name)
    with RowGroupWriter(place, schema, row_group_bytes=plan.config.row_group_bytes) as writer:
        for piece in file.pieces:
            source = plan.config.place(piece.uri)
            with pq.ParquetFile(source.path, filesystem=source.arrow) as pieces:
                for batch in pieces.iter_batches(_ROWS_AT_ONCE, columns=schema.names):
                    writer.write(pa.Table.from_batches([batch]).cast(schema))
    metadata = pq.read_metadata(place.path, filesystem=place.arrow)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return WrittenFile(
        split=file.split,
        name=file.name,
        num_rows=metadata.num_rows,
        num_bytes=int(place.info()["size"]),
        row_group_bytes=[group.total_byte_size for group in groups],
    )


def _grouped(pieces: list[Piece], file_bytes: int) -> list[list[Piece]]:
    """Return runs of pieces of even size, one at least, one more than bytes ask for at most."""
    total = sum(piece.num_bytes for piece in pieces)
    num_files = max(1, round(total / file_bytes))
    groups: list[list[Piece]] = [[] for _ in range(num_files)]
    seen = 0
    for piece in pieces:
        middle = seen + piece.num_bytes / 2
        groups[min(num_files - 1, int(middle * num_files / max(total, 1)))].append(piece)
        seen += piece.num_bytes
    return [group for group in groups if group] or [[]]
