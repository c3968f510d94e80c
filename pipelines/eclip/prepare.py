"""From any products table to clean pairs with catalogue ids: scan, find, judge, write.

The output has the input's columns and `catalog_id`, split into train/ and valid/ (and test/ where
the input has one). What is left out is in `rejected.parquet` with its reason; nothing is lost.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from pipelines.command import RunFailedError
from pipelines.eclip.catalogs import Groups, Ties, placeholder_rows, repeated_rows
from pipelines.eclip.duplicates import DuplicateConfig, StoredTraces, edge_tasks, find_edges
from pipelines.eclip.noise import Noise, NoiseConfig
from pipelines.eclip.report import pair_report, render_pair_report
from pipelines.eclip.scan import GroupTask, ScanSettings, scan_group
from pipelines.nightly.executor import Executor, WorkerDiedError
from pipelines.nightly.inputs import list_inputs
from pipelines.prepare.publishing import (
    FORMAT,
    REPORT_JSON,
    REPORT_MARKDOWN,
    Publication,
    check_apart,
)
from pipelines.prepare.title_groups import SPLITS
from pipelines.storage import Storage, retrying
from pipelines.tables import Columns, id_digest

CATALOG = "catalog_id"
REJECTED = "rejected.parquet"
_REJECTED = pa.schema(
    [("product_id", pa.string()), ("split", pa.string()), ("reason", pa.string())]
)
_log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


class PairConfig(BaseModel):
    """How pairs are prepared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Columns = Field(default_factory=Columns, description="columns of the products table")
    sources: tuple[str, ...] = Field(("title",), description="texts of a pair")
    catalog_column: str | None = Field(CATALOG, description="given catalogue ids, if there are any")
    noise: NoiseConfig = Field(default_factory=NoiseConfig, description="what is left out")
    duplicates: DuplicateConfig = Field(
        default_factory=DuplicateConfig, description="what is one product"
    )
    valid_share: float = Field(
        0.05, ge=0, lt=1, description="part of the products for valid where the input has no splits"
    )


@dataclass(frozen=True)
class PairRequest:
    """What a user asked for."""

    source: Storage
    output: Storage
    config: PairConfig = field(default_factory=PairConfig)
    model: Storage | None = None
    held_out: frozenset[str] = frozenset()
    """Product ids kept away from training."""


def prepare_pairs(request: PairRequest, executor: Executor) -> dict[str, Any]:
    """Make the prepared folder; returns the summary."""
    started = time.monotonic()
    check_apart(request.source, request.output)
    publication = Publication(request.output)
    draft = publication.draft
    try:
        tasks = list(_group_tasks(request, draft.join("_work")))
        rows = sum(_mapped(executor, scan_group, tasks))
        _log.info("%d rows in %d row groups traced", rows, len(tasks))
        traces = StoredTraces(tuple(task.traces for task in tasks), rows)
        groups = _find_groups(traces, request.config, executor)
        reasons = _judge(traces, request.config, with_model=request.model is not None)
        writes = [*_write_tasks(tasks, reasons, groups, request.config, draft)]
        counts: Counter[str] = Counter()
        for found in _mapped(executor, write_group, writes):
            counts.update(found)
        _collect_rejected(writes, draft)
        draft.join("_work").delete()
        report = pair_report(rows, counts, groups.counts, seconds=time.monotonic() - started)
        draft.join(REPORT_JSON).write_bytes(
            json.dumps({"format": FORMAT, "complete": True, **report}, indent=2).encode()
        )
        draft.join(REPORT_MARKDOWN).write_bytes(render_pair_report(report).encode())
        publication.publish()
    except BaseException:
        publication.discard()
        raise
    return {"output": request.output.uri, **report}


def _mapped(
    executor: Executor, function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    for item, found in executor.map(function, items, is_heavy=True):
        if isinstance(found, WorkerDiedError):
            raise RunFailedError(f"{item} could not be worked on: {found}")
        yield found


def _group_tasks(request: PairRequest, work: Storage) -> Iterator[GroupTask]:
    config = request.config
    settings = ScanSettings(
        config.columns,
        config.sources,
        config.noise,
        config.catalog_column,
        held_out=request.held_out,
        model=request.model,
    )
    first_row = number = 0
    for split, file in _files(request.source):
        with file.arrow.open_input_file(file.path) as stream:
            parquet = pq.ParquetFile(stream)
            names, footer = parquet.schema_arrow.names, parquet.metadata
        _check_columns(file, names, settings)
        for group in range(footer.num_row_groups):
            rows = footer.row_group(group).num_rows
            place = work.join("traces", f"{number:06d}.parquet")
            yield GroupTask(file, group, first_row, rows, split, place, settings)
            first_row, number = first_row + rows, number + 1


def _files(source: Storage) -> Iterator[tuple[str, Storage]]:
    """(split, file); split is "" where the input has none."""
    given = [split for split in SPLITS if source.join(split).is_folder()]
    for split in given or [""]:
        for file in list_inputs([source.join(split).uri], source.options):
            if file.is_csv:
                raise ValueError(f"found {file.uri}, expected Parquet; run jobs/prepare.py tagged")
            yield split, Storage.of(file.uri, source.options)


def _check_columns(file: Storage, names: Sequence[str], settings: ScanSettings) -> None:
    for name in settings.wanted(names):
        if name not in names:
            raise ValueError(
                f"{file.uri} has no column {name!r}, expected one of {names}; name the columns "
                "with --set columns...."
            )
    columns = settings.columns
    if columns.image not in names and columns.images not in names:
        raise ValueError(
            f"{file.uri} has no pictures, expected column {columns.image!r} or {columns.images!r}; "
            "name it with --set columns.image=NAME"
        )


def _find_groups(traces: StoredTraces, config: PairConfig, executor: Executor) -> Groups:
    tasks = edge_tasks(traces, config.duplicates)
    is_placeholder = placeholder_rows(traces, config.noise.placeholder_titles)
    ties = Ties(traces.num_rows)
    for task, edges in executor.map(find_edges, tasks, is_heavy=True):
        if isinstance(edges, WorkerDiedError):
            raise RunFailedError(f"duplicates could not be looked for: {edges}")
        # A placeholder says nothing about the product; a given id does.
        ties.add(task.kind, edges if task.kind == "catalog" else edges.without(is_placeholder))
    return ties.groups(config.duplicates)


def _judge(traces: StoredTraces, config: PairConfig, *, with_model: bool) -> np.ndarray:
    """[N] the reason why a row is left out; "" for the others."""
    reasons = np.full(traces.num_rows, "", dtype=object)
    similarity = np.full(traces.num_rows, np.nan, np.float32)
    for batch in traces.batches(("row", "noise", "similarity")):
        reasons[batch["row"]] = [reason or "" for reason in batch["noise"]]
        similarity[batch["row"]] = batch["similarity"].astype(np.float32)
    later = (
        (placeholder_rows(traces, config.noise.placeholder_titles), Noise.PLACEHOLDER),
        (repeated_rows(traces), Noise.REPEATED),
    )
    for is_noise, reason in later:
        reasons[is_noise & (reasons == "")] = reason.value
    if with_model and config.noise.mismatch_share:
        clean = (reasons == "") & ~np.isnan(similarity)
        if clean.any():
            limit = np.quantile(similarity[clean], config.noise.mismatch_share)
            reasons[clean & (similarity < limit)] = Noise.MISMATCH.value
    return reasons


@dataclass(frozen=True, slots=True)
class WriteTask:
    """One row group with the verdict over its rows (a stored table: row, reason, catalog_id)."""

    group: GroupTask
    verdict: Storage
    output: Storage
    number: int
    valid_share: float

    @property
    def rejected(self) -> Storage:
        """Where the rows that are left out go."""
        return self.verdict.sibling(self.verdict.path.replace(".parquet", "-rejected.parquet"))


def _write_tasks(
    tasks: Sequence[GroupTask],
    reasons: np.ndarray,
    groups: Groups,
    config: PairConfig,
    draft: Storage,
) -> Iterator[WriteTask]:
    names = _group_names(tasks, groups)
    for number, task in enumerate(tasks):
        rows = slice(task.first_row, task.first_row + task.num_rows)
        ids = [names.get(int(label)) for label in groups.labels[rows]]
        table = pa.table({"reason": list(reasons[rows]), CATALOG: pa.array(ids, pa.string())})
        place = draft.join("_work", "verdicts", f"{number:06d}.parquet")
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        place.write_bytes(sink.getvalue().to_pybytes())
        yield WriteTask(task, place, draft, number, config.valid_share)


def _group_names(tasks: Sequence[GroupTask], groups: Groups) -> dict[int, str]:
    """Catalogue ids of groups: the first id given to a member, else one made of the first row."""
    sizes = np.bincount(groups.labels, minlength=len(groups.labels))
    given: dict[int, str] = {}
    made: dict[int, str] = {}
    traces = StoredTraces(tuple(task.traces for task in tasks), len(groups.labels))
    for batch in traces.batches(("row", "id_hi", "catalog_id")):
        labels = groups.labels[batch["row"]]
        for place in np.flatnonzero(sizes[labels] > 1):
            label, row = int(labels[place]), int(batch["row"][place])
            if batch["catalog_id"][place] is not None:
                given.setdefault(label, str(batch["catalog_id"][place]))
            if label == row:
                made[label] = f"auto-{int(batch['id_hi'][place]):016x}"
    return made | given


def write_group(task: WriteTask) -> dict[str, int]:
    """Write the clean rows of a group and note the others; returns counts by split and reason."""
    with task.verdict.arrow.open_input_file(task.verdict.path) as stream:
        verdict = pq.read_table(stream)
    group = task.group
    rows = group.read()
    found = verdict[CATALOG].to_pylist()
    given_name = group.settings.catalog_column
    if given_name in rows.column_names:
        given = rows[given_name].to_pylist()
        found = [a if b is None else str(b) for a, b in zip(found, given, strict=True)]
    if CATALOG in rows.column_names:
        rows = rows.drop_columns([CATALOG])
    rows = rows.append_column(CATALOG, pa.array(found, pa.string()))
    reasons = verdict["reason"].to_pylist()
    ids = [
        None if i is None else str(i) for i in rows[group.settings.columns.product_id].to_pylist()
    ]
    splits = [
        group.split or _made_split(catalog or str(product_id), task.valid_share)
        for catalog, product_id in zip(found, ids, strict=True)
    ]
    counts: Counter[str] = Counter()
    for split in sorted(set(splits)):
        chosen = [s == split and not r for s, r in zip(splits, reasons, strict=True)]
        part = rows.filter(pa.array(chosen))
        if part.num_rows:
            _put(part, task.output.join(split, f"part-{task.number:05d}.parquet"))
        counts[f"split {split}"] += part.num_rows
    left_out = [place for place, reason in enumerate(reasons) if reason]
    counts.update(f"reason {reasons[place]}" for place in left_out)
    columns = [[values[i] for i in left_out] for values in (ids, splits, reasons)]
    _put(pa.table(columns, schema=_REJECTED), task.rejected)
    return dict(counts)


def _made_split(key: str, valid_share: float) -> str:
    position = int.from_bytes(id_digest(key)[:8], "little") / 2**64
    return "valid" if position < valid_share else "train"


def _put(rows: pa.Table, place: Storage) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    retrying(lambda: place.write_bytes(sink.getvalue().to_pybytes()))


def _collect_rejected(tasks: Iterable[WriteTask], draft: Storage) -> None:
    tables = [_REJECTED.empty_table()]
    for task in tasks:
        with task.rejected.arrow.open_input_file(task.rejected.path) as stream:
            tables.append(pq.read_table(stream))
    _put(pa.concat_tables(tables), draft.join(REJECTED))
