"""Raw data in, a products table with gold out: list, stage, compact, publish.

Rows and pictures only pass through tasks; the driver holds counts, and some bytes for each
product's title and id.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray

from pipelines.cluster.connect import connect_cluster
from pipelines.cluster.tasks import map_tasks, results
from pipelines.labelled.corrections import Corrections, read_corrections
from pipelines.lake.kinds import check_apart
from pipelines.lake.storage import Storage
from pipelines.prepare.columns import find_columns
from pipelines.prepare.compaction import WrittenFile, plan_files, write_file
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.duplicates import find_duplicates
from pipelines.prepare.publishing import REPORT_JSON, REPORT_MARKDOWN, Publication
from pipelines.prepare.report import build_report, render_markdown
from pipelines.prepare.shards import Inputs, Shard, find_raw_files
from pipelines.prepare.staging import (
    TITLE_GROUP,
    Piece,
    Shared,
    StagedShard,
    StagingPlan,
    output_schema,
    stage_shard,
)
from pipelines.prepare.tally import Tally
from pipelines.prepare.title_groups import SPLITS

_PICTURE_FOLDERS = {"mae": "mumie-img", "mepave": "product_images"}
_SECONDS_BETWEEN_REPORTS = 5.0
_log = logging.getLogger(__name__)


def prepare(config: PrepareConfig) -> dict[str, Any]:
    """Make the prepared folder; returns the summary. ValueError where the request is wrong."""
    started = time.monotonic()
    target = config.place(config.output)
    check_apart(config.place(config.input), target)
    config = _with_pictures(config)
    corrections = _corrections(config)
    inputs = find_raw_files(config)
    columns = find_columns(config, inputs)
    output_schema(config, columns)
    publication = Publication(target)
    try:
        plan = StagingPlan(
            config=config,
            columns=columns,
            missing_splits=frozenset({"valid", "test"} - inputs.given_splits()),
            output=publication.draft,
        )
        connect_cluster()
        report = _work(plan, inputs, corrections)
        publication.publish()
    except BaseException:
        publication.discard()
        raise
    return _summary(report, target, seconds=time.monotonic() - started)


def _work(plan: StagingPlan, inputs: Inputs, corrections: Corrections) -> dict[str, Any]:
    tally = Tally()
    for file, problem in inputs.problems:
        tally.add_problem(problem, file=file)
    pieces = _stage(plan, inputs, corrections, tally)
    if not tally.kept:
        raise ValueError(_nothing_usable(plan.config, tally))
    duplicates = find_duplicates(pieces, plan)
    files = plan_files(pieces, file_bytes=plan.config.file_bytes)
    written = list(results(map_tasks(lambda file: write_file(file, plan), files, num_cpus=1)))
    written.sort(key=lambda file: (file.split, file.name))
    _check_written(plan, written, tally)
    plan.staging.delete()
    report = build_report(
        plan.config,
        tally,
        written,
        split_origin={split: _origin(split, inputs) for split in SPLITS},
        ignored=inputs.ignored,
        duplicates=duplicates,
    )
    for warning in report["warnings"]:
        _log.warning("%s", warning)
    text = json.dumps(report, ensure_ascii=False, indent=1)
    plan.output.join(REPORT_JSON).write_bytes(text.encode())
    plan.output.join(REPORT_MARKDOWN).write_bytes(render_markdown(report).encode())
    return report


def _stage(
    plan: StagingPlan, inputs: Inputs, corrections: Corrections, tally: Tally
) -> list[Piece]:
    """Stage held-out splits first, so that what follows can be told which titles are taken."""
    pieces: list[Piece] = []
    taken = np.empty(0, np.int64)
    for split in ("test", "valid", "train", None):
        shards = [shard for shard in inputs.shards if shard.file.split == split]
        if not shards:
            continue
        shared = ray.put(Shared(corrections, taken))

        def stage(shard: Shard, shared: Any = shared) -> StagedShard:
            return stage_shard(shard, plan, ray.get(shared))

        staged = results(map_tasks(stage, shards, num_cpus=1))
        new = _merge_in_order(staged, shards, plan, tally)
        pieces += new
        if split in ("test", "valid"):
            taken = np.union1d(taken, _title_groups(new, plan))
    return pieces


def _merge_in_order(
    results: Iterator[StagedShard], shards: Sequence[Shard], plan: StagingPlan, tally: Tally
) -> list[Piece]:
    """Add up in input order, so that lines are numbered and reports come out equal every time."""
    pieces: list[Piece] = []
    waiting: dict[int, StagedShard] = {}
    lines: dict[str, int] = {}
    position, told = 0, time.monotonic()
    for result in results:
        waiting[result.shard] = result
        while position < len(shards) and shards[position].index in waiting:
            shard = shards[position]
            staged = waiting.pop(shard.index)
            first_line = lines.get(shard.file.name, 0)
            tally.merge(staged.tally, first_line=first_line, max_notes=plan.config.max_problems)
            lines[shard.file.name] = first_line + staged.tally.lines
            pieces += staged.pieces
            position += 1
        if time.monotonic() - told > _SECONDS_BETWEEN_REPORTS or position == len(shards):
            told = time.monotonic()
            _log.info("%d of %d shards, %d products so far", position, len(shards), tally.kept)
    assert position == len(shards), "a shard gave no result"
    return pieces


def _title_groups(pieces: Sequence[Piece], plan: StagingPlan) -> np.ndarray:
    groups = [piece.read(plan.config, TITLE_GROUP)[TITLE_GROUP].to_numpy() for piece in pieces]
    return np.unique(np.concatenate(groups)) if groups else np.empty(0, np.int64)


def _check_written(plan: StagingPlan, files: Sequence[WrittenFile], tally: Tally) -> None:
    """Check that this process sees what the tasks wrote: on a cluster, OUT must be shared."""
    for file in files:
        place = plan.output.join(file.split, file.name)
        if not place.exists():
            raise ValueError(
                f"the cluster wrote {file.name}, but it is not visible here; "
                "give --out in storage that all machines share"
            )
    num_rows = sum(file.num_rows for file in files)
    assert num_rows == tally.kept, f"wrote {num_rows} rows of {tally.kept}"


def _with_pictures(config: PrepareConfig) -> PrepareConfig:
    if config.images is not None:
        if not config.place(config.images).is_folder():
            raise ValueError(f"found no folder at --images {config.images}; check the path")
        return config
    usual = _PICTURE_FOLDERS.get(config.kind)
    place = config.place(config.input)
    if usual is None or not place.join(usual).is_folder():
        return config
    return config.model_copy(update={"images": place.join(usual).uri})


def _corrections(config: PrepareConfig) -> Corrections:
    if config.corrections is None:
        return Corrections()
    return read_corrections(config.place(config.corrections))


def _nothing_usable(config: PrepareConfig, tally: Tally) -> str:
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(tally.dropped.items()))
    first = f"; first: {tally.notes[0].file}:{tally.notes[0].line} " if tally.notes else ""
    detail = tally.notes[0].detail if tally.notes else ""
    return (
        f"found no usable product in --in {config.input} ({tally.read} rows read"
        f"{', ' + reasons if reasons else ''}){first}{detail}"
    )


def _origin(split: str, inputs: Inputs) -> str:
    given = inputs.given_splits()
    if split in given:
        return "input"
    if not given:
        return "title groups"
    return "title groups of train" if "train" in given else "absent"


def _summary(report: dict[str, Any], target: Storage, *, seconds: float) -> dict[str, Any]:
    return {
        "out": target.uri,
        "report": target.join(REPORT_JSON).uri,
        "rows": report["rows"],
        "splits": {name: split["rows"] for name, split in report["splits"].items()},
        "pictures": report["pictures"],
        "values": report["values"],
        "num_attributes": report["num_attributes"],
        "warnings": report["warnings"],
        "num_problems": report["problems"]["found"],
        "rows_per_second": round(report["rows"]["read"] / max(seconds, 1e-9), 1),
    }
