"""From any products table to clean pairs with catalogue ids: scan, find, judge, cut, join.

The output has the input's columns and `catalog_id`, split into train/ and valid/ (and test/ where
the input has one); listings of one product lie together. What is left out is in `rejected.parquet`
with its reason; nothing is lost.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipelines.cluster.tasks import MapTasks, WorkerDiedError, results
from pipelines.errors import RunFailedError
from pipelines.lake.inputs import list_inputs
from pipelines.lake.kinds import check_apart
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.prepare.pairs.catalogs import Groups, Ties, placeholder_rows, repeated_rows
from pipelines.prepare.pairs.duplicates import DuplicateConfig, StoredTraces, edge_tasks, find_edges
from pipelines.prepare.pairs.noise import Noise, NoiseConfig
from pipelines.prepare.pairs.report import pair_report, render_pair_report
from pipelines.prepare.pairs.scan import GroupTask, ScanSettings, scan_group
from pipelines.prepare.pairs.spread import (
    CATALOG,
    REJECTED,
    CutTask,
    JoinTask,
    cut_rows,
    join_rows,
    read_table,
)
from pipelines.prepare.pairs.verdicts import Verdicts, decide
from pipelines.prepare.publishing import (
    FORMAT,
    REPORT_JSON,
    REPORT_MARKDOWN,
    Publication,
)
from pipelines.prepare.title_groups import SPLITS
from pipelines.prepare.writing import put_table
from ulsdram_core.frozen import Frozen

REJECTED_FILE = "rejected.parquet"
_log = logging.getLogger(__name__)


class PairConfig(Frozen):
    """How pairs are prepared."""

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
    file_bytes: int = Field(
        256_000_000,
        ge=1,
        le=1_000_000_000,
        description="bytes in memory of an output file; a worker holds about three times as much",
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


def prepare_pairs(request: PairRequest, map_tasks: MapTasks) -> dict[str, Any]:
    """Make the prepared folder; returns the summary."""
    started = time.monotonic()
    check_apart(request.source, request.output)
    publication = Publication(request.output)
    draft = publication.draft
    try:
        work = draft.join("_work")
        tasks, schema = _open_input(request, work)
        rows = sum(results(map_tasks(scan_group, tasks)))
        _log.info("%d rows in %d row groups traced", rows, len(tasks))
        traces = StoredTraces(tuple(task.traces for task in tasks), rows)
        groups = _find_groups(traces, request.config, map_tasks)
        reasons = _judge(traces, request.config, with_model=request.model is not None)
        verdicts = decide(
            tasks,
            groups,
            reasons,
            valid_share=request.config.valid_share,
            file_bytes=request.config.file_bytes,
        )
        cuts = list(_cut_tasks(tasks, verdicts, request.config.file_bytes, schema, work))
        counts = _write(cuts, verdicts.files, draft, map_tasks)
        work.delete()
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


def _open_input(request: PairRequest, work: Storage) -> tuple[list[GroupTask], pa.Schema]:
    """Return all row groups, and the columns of the output."""
    config = request.config
    settings = ScanSettings(
        config.columns,
        config.sources,
        config.noise,
        config.catalog_column,
        held_out=request.held_out,
        model=request.model,
    )
    tasks: list[GroupTask] = []
    schema: pa.Schema | None = None
    first_row = 0
    for split, file in _files(request.source):
        with file.arrow.open_input_file(file.path) as stream:
            parquet = pq.ParquetFile(stream)
            found, footer = parquet.schema_arrow.remove_metadata(), parquet.metadata
        _check_columns(file, found.names, settings)
        schema = found if schema is None else _joint_schema(schema, found, file)
        for group in range(footer.num_row_groups):
            size = footer.row_group(group)
            place = work.join("traces", f"{len(tasks):06d}.parquet")
            tasks.append(
                GroupTask(
                    file, group, first_row, size.num_rows, size.total_byte_size, split, place,
                    settings,
                )
            )  # fmt: skip
            first_row += size.num_rows
    assert schema is not None, "an input without files is refused"
    return tasks, _output_schema(schema)


def _joint_schema(schema: pa.Schema, found: pa.Schema, file: Storage) -> pa.Schema:
    if found.equals(schema):
        return schema
    try:
        return pa.unify_schemas([schema, found], promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(
            f"the columns of {file.uri} do not fit those of the files before it: {error}; give "
            "columns of one name one type"
        ) from error


def _output_schema(schema: pa.Schema) -> pa.Schema:
    """Return the input's columns, and `catalog_id` last."""
    fields = []
    for one in schema:
        # Every file has a dictionary of its own; rows of many files lie together in the output.
        kind = one.type.value_type if pa.types.is_dictionary(one.type) else one.type
        if one.name != CATALOG:
            fields.append(pa.field(one.name, kind))
    return pa.schema([*fields, pa.field(CATALOG, pa.string())])


def _files(source: Storage) -> Iterator[tuple[str, Storage]]:
    """Yield (split, file); split is "" where the input has none."""
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


def _find_groups(traces: StoredTraces, config: PairConfig, map_tasks: MapTasks) -> Groups:
    tasks = edge_tasks(traces, config.duplicates)
    is_placeholder = placeholder_rows(traces, config.noise.placeholder_titles)
    ties = Ties(traces.num_rows)
    for task, edges in map_tasks(find_edges, tasks):
        if isinstance(edges, WorkerDiedError):
            raise RunFailedError(f"duplicates could not be looked for: {edges}")
        # A placeholder says nothing about the product; a given id does.
        ties.add(task.kind, edges if task.kind == "catalog" else edges.without(is_placeholder))
    return ties.groups(config.duplicates)


def _judge(traces: StoredTraces, config: PairConfig, *, with_model: bool) -> np.ndarray:
    """Return [N] reasons why a row is left out; "" for the others."""
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


def _cut_tasks(
    tasks: Sequence[GroupTask], verdicts: Verdicts, num_bytes: int, schema: pa.Schema, work: Storage
) -> Iterator[CutTask]:
    for number, groups in enumerate(_together(tasks, num_bytes)):
        verdict = work.join("verdicts", f"{number:06d}.parquet")
        put_table(verdicts.table(groups), verdict)
        pieces = work.join("pieces", f"{number:06d}")
        yield CutTask(groups, verdict, pieces, len(verdicts.files), num_bytes, schema)


def _together(tasks: Sequence[GroupTask], num_bytes: int) -> Iterator[tuple[GroupTask, ...]]:
    """Yield consecutive row groups of about so many bytes: joining reads from every piece."""
    waiting: list[GroupTask] = []
    size = 0
    for task in tasks:
        waiting.append(task)
        size += task.num_bytes
        if size >= num_bytes:
            yield tuple(waiting)
            waiting, size = [], 0
    if waiting:
        yield tuple(waiting)


def _write(
    cuts: Sequence[CutTask], files: Sequence[str], draft: Storage, map_tasks: MapTasks
) -> Counter[str]:
    """Write the output's files and the rows left out; counts by split and reason."""
    counts: Counter[str] = Counter()
    pieces: list[Storage] = []
    for cut in results(map_tasks(cut_rows, cuts)):
        counts.update(cut.counts)
        pieces += cut.pieces
    joins = [
        JoinTask(bucket, draft, path, tuple(pieces), cuts[0].schema)
        for bucket, path in enumerate(files)
    ]
    for found in results(map_tasks(join_rows, joins)):
        counts.update(found)
    rejected = [read_table(cut.rejected) for cut in cuts]
    put_table(pa.concat_tables([REJECTED.empty_table(), *rejected]), draft.join(REJECTED_FILE))
    return counts
