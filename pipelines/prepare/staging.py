"""First stage: a shard of raw input becomes pieces of the products table, one a split."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipelines.labelled.corrections import Corrections
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns, id_digest, products_schema
from pipelines.prepare.columns import ResolvedColumns
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.mae import read_mae
from pipelines.prepare.mepave import read_mepave
from pipelines.prepare.rows import Problem, RawProduct, order_spans
from pipelines.prepare.shards import Shard
from pipelines.prepare.tagged import read_tagged
from pipelines.prepare.tally import Tally
from pipelines.prepare.title_groups import SPLITS, split_of_group, title_group
from pipelines.prepare.writing import RowGroupWriter

TITLE_GROUP = "title_group"
ID_HASH = "id_hash"
_ROWS_AT_ONCE = 256
_BYTES_AT_ONCE = 16_000_000


class Piece(BaseModel):
    """A staged file: rows of one split from one shard, in input order."""

    shard: int
    split: str
    uri: str
    num_rows: int
    num_bytes: int

    def read(self, config: PrepareConfig, *columns: str) -> pa.Table:
        """Return some of the columns, whole."""
        place = config.place(self.uri)
        return pq.read_table(place.path, columns=list(columns), filesystem=place.arrow)


class StagedShard(BaseModel):
    """What one shard became."""

    shard: int
    tally: Tally
    pieces: list[Piece]


class StagingPlan(BaseModel):
    """What every shard's task must know."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    config: PrepareConfig
    columns: ResolvedColumns | None
    missing_splits: frozenset[str]
    output: Storage

    @property
    def staging(self) -> Storage:
        """Where pieces wait to be put together; not part of what is published."""
        return self.output.join("_staging")

    def output_schema(self) -> pa.Schema:
        """Return the output's columns: only those that the input can fill."""
        return output_schema(self.config, self.columns)

    def staging_schema(self) -> pa.Schema:
        """Return the output's columns, each row's title group, and a hash of its id."""
        own = [pa.field(TITLE_GROUP, pa.int64()), pa.field(ID_HASH, pa.int64())]
        return pa.schema([*self.output_schema(), *own])


def output_schema(config: PrepareConfig, columns: ResolvedColumns | None) -> pa.Schema:
    """Return the schema of a products table, with the kept columns as strings."""
    has_description = config.kind == "mae" or (columns is not None and bool(columns.description))
    has_lists = config.kind == "mae" or (columns is not None and columns.has_picture_lists)
    has_category = columns is not None and columns.category is not None
    sources = {"title": "title", "description": "description"}
    schema = products_schema(
        Columns(
            sources=sources if has_description else {"title": "title"},
            image=None if has_lists else "image",
            images="images" if has_lists else None,
            image_uri=None,
            category="category" if has_category else None,
            updated_at=None,
        )
    )
    for name in config.keep:
        if name in schema.names:
            raise ValueError(f"--keep {name} is written anyway; leave it out")
        schema = schema.append(pa.field(name, pa.string()))
    return schema


@dataclass(frozen=True, slots=True)
class Shared:
    """What all tasks of a wave look up: decisions, and title groups of splits read before."""

    corrections: Corrections = field(default_factory=Corrections)
    taken_groups: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def is_taken(self, group: int) -> bool:
        """Return whether a split that was read before has this title group; groups are sorted."""
        place = int(np.searchsorted(self.taken_groups, group))
        return place < len(self.taken_groups) and int(self.taken_groups[place]) == group


def stage_shard(shard: Shard, plan: StagingPlan, shared: Shared) -> StagedShard:
    """Read one shard and write its products, without ever holding more than a few megabytes."""
    tally, pieces = Tally(), []
    schema = plan.staging_schema()
    with ExitStack() as stack:
        writers: dict[str, tuple[Storage, RowGroupWriter]] = {}
        for split, table in _tables(shard, plan, shared, tally):
            if split not in writers:
                place = plan.staging.join(f"{shard.index:08d}-{split}-{uuid.uuid4().hex}.parquet")
                writer = RowGroupWriter(
                    place, schema, row_group_bytes=plan.config.row_group_bytes // 2
                )
                writers[split] = place, stack.enter_context(writer)
            writers[split][1].write(table)
    for split, (place, writer) in writers.items():
        pieces.append(
            Piece(
                shard=shard.index,
                split=split,
                uri=place.uri,
                num_rows=writer.num_rows,
                num_bytes=writer.num_bytes,
            )
        )
    return StagedShard(shard=shard.index, tally=tally, pieces=pieces)


def _tables(
    shard: Shard, plan: StagingPlan, shared: Shared, tally: Tally
) -> Iterator[tuple[str, pa.Table]]:
    schema = plan.staging_schema()
    waiting: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    sizes = dict.fromkeys(SPLITS, 0)
    for split, product, group in _products(shard, plan, shared, tally):
        waiting[split].append(_row(product, group))
        sizes[split] += sum(map(len, product.pictures)) + sum(map(len, product.texts.values()))
        if len(waiting[split]) >= _ROWS_AT_ONCE or sizes[split] >= _BYTES_AT_ONCE:
            yield split, pa.Table.from_pylist(waiting[split], schema)
            waiting[split], sizes[split] = [], 0
    for split, rows in waiting.items():
        if rows:
            yield split, pa.Table.from_pylist(rows, schema)


def _products(
    shard: Shard, plan: StagingPlan, shared: Shared, tally: Tally
) -> Iterator[tuple[str, RawProduct, int]]:
    """Yield (split, product, title group) of what is kept; everything is counted."""
    for item in _read(shard, plan):
        tally.lines += item.num_rows or 1 if isinstance(item, Problem) else 1
        if item is None:
            tally.blank_lines += 1
            continue
        if isinstance(item, Problem):
            tally.add_problem(item, file=shard.file.name)
            continue
        group = title_group(item.texts["title"] or next(filter(None, item.texts.values())))
        split = _split(shard, group, plan)
        if shared.is_taken(group):
            tally.add_leak(split, is_dropped=plan.config.drop_leaks)
            if plan.config.drop_leaks:
                continue
        _correct(item, shared.corrections, tally)
        tally.add_product(item, split=split, file=shard.file.name)
        yield split, item, group


def _read(shard: Shard, plan: StagingPlan) -> Iterator[RawProduct | Problem | None]:
    if plan.columns is not None:
        return read_tagged(shard, plan.config, plan.columns)
    reader = read_mae if plan.config.kind == "mae" else read_mepave
    return reader(shard, plan.config)


def _correct(product: RawProduct, corrections: Corrections, tally: Tally) -> None:
    corrected = corrections.apply(product.product_id, product.texts, product.gold)
    product.gold = order_spans(corrected.spans, list(product.texts))
    tally.corrections_applied += corrected.num_applied
    tally.corrections_removed += corrected.num_removed
    tally.corrections_added += corrected.num_added
    tally.corrections_outside_text += len(corrected.outside)


def _split(shard: Shard, group: int, plan: StagingPlan) -> str:
    """Return the input's split, else one by the title group; missing ones come out of train."""
    given = shard.file.split
    if given in ("valid", "test"):
        return given
    shares = plan.config.shares()
    if given == "train":
        shares = {split: share for split, share in shares.items() if split in plan.missing_splits}
    return split_of_group(group, shares)


def _row(product: RawProduct, group: int) -> dict[str, Any]:
    """Return a row; keys that the schema lacks are not written."""
    return {
        "product_id": product.product_id,
        "title": product.texts["title"],
        "description": product.texts.get("description") or None,
        "image": product.pictures[0] if product.pictures else None,
        "images": product.pictures,
        "category": product.category,
        "specs": [{"attribute": name, "value": value} for name, value in product.specs],
        "gold": [
            {
                "attribute": span.attribute,
                "value": span.value,
                "start": span.start,
                "end": span.end,
                "source": span.source,
            }
            for span in product.gold
        ],
        TITLE_GROUP: group,
        ID_HASH: int.from_bytes(id_digest(product.product_id)[:8], "little", signed=True),
        **product.extra,
    }
