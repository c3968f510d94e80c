"""The five tasks over several systems: request, course, report as Markdown and JSON."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.benchmark.eclip.extract import ExtractSettings, extract_figures
from pipelines.benchmark.eclip.finetune import FineTuning, fine_tuned_binary, fine_tuned_classes
from pipelines.benchmark.eclip.match import match, match_data
from pipelines.benchmark.eclip.tasks import (
    Figure,
    ProbeSettings,
    System,
    classify,
    cluster,
    recognise,
)
from pipelines.benchmark.eclip.vectors import SplitVectors, embed_split, join_vectors, split_frame
from pipelines.command.markdown import markdown_table
from pipelines.evaluate.slices import parse_slices
from pipelines.labelled.table import LabelledTable, open_labelled
from pipelines.lake.kinds import BENCHMARK, check_apart, claim
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.train.eclip.job import PretrainRequest, starting_encoders
from pipelines.train.eclip.recipe import EclipRecipe
from pipelines.train.eclip.table import open_pairs
from pipelines.train.extractor.recipe import Recipe
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.finetune import FineTuneConfig
from ulsdram_core.eclip.parts import EclipParts, load_eclip
from ulsdram_core.eclip.scores import sklearn_metrics

_log = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
AS_THEY_CAME = "as they came"


@dataclass(frozen=True)
class TasksRequest:
    """What a user asked for."""

    data: Storage
    output: Storage
    models: Mapping[str, Storage] = field(default_factory=dict)
    baseline: EclipRecipe | None = None
    """Its encoders are also measured as they came."""
    categories: tuple[str, ...] = ()
    binaries: tuple[str, ...] = ()
    """NAME=EXPRESSION each."""
    clusters: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()
    extract: Recipe | None = None
    extract_shares: tuple[float, ...] = (0.01, 0.1)
    extract_steps: int = 200
    extract_test_rows: int | None = None
    seeds: int = 3
    folds: int = 5
    limit: int | None = None
    fine_tune: FineTuneConfig | None = None
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    columns: Columns = field(default_factory=Columns)
    template: str = "{}"


def run_tasks(request: TasksRequest) -> dict[str, Any]:
    """Measure every system on every task; writes report.md and report.json."""
    started = time.monotonic()
    sklearn_metrics()  # missing packages are told before hours of embedding, not after
    labels = parse_slices(request.binaries)
    if not (request.models or request.baseline):
        raise ValueError("found no --model and no --baseline, expected at least one system")
    check_apart(request.data, request.output, read="--data")
    claim(request.output, BENCHMARK)
    figures: list[Figure] = []
    for name, parts in _systems(request):
        _log.info("system %s", name)
        found = list(_measure(name, parts, request, labels))
        figures += found
        _write(request, figures, seconds=time.monotonic() - started)
    return {
        "report": request.output.join("report.md").uri,
        "figures": len(figures),
        "systems": sorted({figure.system for figure in figures}),
    }


def _systems(request: TasksRequest) -> Iterator[tuple[str, EclipParts]]:
    if request.baseline is not None:
        table = _open(request, "train", request.baseline.text.sources)
        wanted = PretrainRequest(request.baseline, request.data, request.output)
        yield AS_THEY_CAME, starting_encoders(wanted, table)
    for name, place in request.models.items():
        with place.local_copy() as folder:
            yield name, load_eclip(folder)


def _open(request: TasksRequest, split: str, sources: tuple[str, ...]) -> LabelledTable:
    return open_pairs(request.data, split, columns=request.columns, sources=sources)


def _measure(
    name: str, parts: EclipParts, request: TasksRequest, labels: Mapping[str, pl.Expr]
) -> Iterator[Figure]:
    sources = parts.config.text.sources
    tables = {split: _open(request, split, sources) for split in SPLITS}
    if request.categories or labels or request.clusters or request.matches:
        system = _embedded(name, parts, request, tables)
        _check_columns(request, system)
        tuning = None
        if request.fine_tune is not None:
            tuning = FineTuning(tables, request.fine_tune, request.probe)
        for column in request.categories:
            yield from classify(system, column, request.probe, template=request.template)
            if tuning is not None:
                yield from fine_tuned_classes(system, column, tuning)
        for label, expression in labels.items():
            yield from recognise(system, label, expression, request.probe)
            if tuning is not None:
                yield from fine_tuned_binary(system, label, expression, tuning)
        for column in request.clusters:
            yield from cluster(system, column, seeds=range(request.seeds))
        everything = _joined(system)
        for column in request.matches:
            num_train = system.splits["train"].frame.height
            data = match_data(everything.frame, column, num_train=num_train)
            yield from match(system, data, everything, folds=request.folds)
    if request.extract is not None:
        settings = ExtractSettings(
            request.extract,
            request.extract_shares,
            request.seeds,
            min_steps=request.extract_steps,
            test_rows=request.extract_test_rows,
        )
        labelled = {split: _labelled(request, split) for split in ("train", "test")}
        yield from extract_figures(name, parts, labelled, settings)


def _embedded(
    name: str, parts: EclipParts, request: TasksRequest, tables: Mapping[str, LabelledTable]
) -> System:
    embedder = Embedder(parts)
    place = request.output.join("vectors")
    cache = Path(place.path) if place.is_local else None
    splits = {}
    for split, table in tables.items():
        frame = split_frame(table, request.limit)
        _log.info("%s: embedding %d rows of %s", name, frame.height, split)
        splits[split] = embed_split(embedder, table, frame, cache=cache)
    return System(name, embedder, splits)


def _check_columns(request: TasksRequest, system: System) -> None:
    known = system.splits["train"].frame.columns
    for column in (*request.categories, *request.clusters):
        if column not in known:
            raise ValueError(f"found no column {column!r}, expected one of {known}")


def _joined(system: System) -> SplitVectors:
    """Return all splits as one gallery: duplicates straddle splits."""
    parts = [system.splits[split] for split in SPLITS]
    names = set.intersection(*(set(part.frame.columns) for part in parts))
    frame = pl.concat([part.frame.select(sorted(names)) for part in parts])
    aligned = [part.embeddings for part in parts if part.embeddings is not None]
    return SplitVectors(
        frame,
        join_vectors([part.features for part in parts]),
        join_vectors(aligned) if aligned else None,
    )


def _labelled(request: TasksRequest, split: str) -> LabelledTable:
    assert request.extract is not None
    return open_labelled(
        request.data,
        split,
        columns=request.columns,
        sources=request.extract.text.sources,
        uses_pictures=request.extract.image is not None,
    )


def _write(request: TasksRequest, figures: Sequence[Figure], *, seconds: float) -> None:
    document = {"seconds": round(seconds, 1), "figures": [asdict(figure) for figure in figures]}
    text = json.dumps(document, indent=2) + "\n"
    request.output.join("report.json").write_bytes(text.encode())
    request.output.join("report.md").write_bytes(render_figures(figures).encode())


def render_figures(figures: Sequence[Figure]) -> str:
    """Return one table per task: a line per modality and way, a column per system and figure."""
    lines = [
        "# Tasks of the pre-trained encoders",
        "",
        "e-CLIP here is a reconstruction; no figure is the paper's. Intervals are 95%.",
        "",
        "Training products are rows of train/: pre-training may have seen them and their partners.",
        "",
    ]
    for task in dict.fromkeys(figure.task for figure in figures):
        mine = [figure for figure in figures if figure.task == task]
        order = {key: i for i, key in enumerate(dict.fromkeys((f.modality, f.way) for f in mine))}
        rows = [
            (figure.modality, figure.way, figure.system, ", ".join(_shown(figure.values)),
             figure.detail)
            for figure in sorted(mine, key=lambda f: order[f.modality, f.way])
        ]  # fmt: skip
        header = ("modality", "way", "system", "figures", "over")
        lines += [f"## {task}", "", markdown_table(header, rows), ""]
    return "\n".join(lines)


def _shown(values: Mapping[str, float]) -> Iterator[str]:
    for name, value in values.items():
        if name.endswith(("_low", "_high", "_sd")):
            continue
        text = f"{name} {100 * value:.2f}"
        if f"{name}_low" in values:
            text += f" [{100 * values[f'{name}_low']:.2f}, {100 * values[f'{name}_high']:.2f}]"
        if f"{name}_sd" in values:
            text += f" +- {100 * values[f'{name}_sd']:.2f}"
        yield text
