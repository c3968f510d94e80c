"""The evaluate command behind its script: open the model, score, write JSON."""

import json
import logging
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cluster.connect import connect_for_workers
from pipelines.evaluate.scoring import evaluate_table, readable_table
from pipelines.evaluate.slices import find_members, parse_slices
from pipelines.labelled.table import (
    LabelledTable,
    TableError,
    check_texts,
    gold_attributes,
    open_labelled,
    warn_of_no_pictures,
    warn_of_unread_gold,
)
from pipelines.lake.catalog import parse_columns
from pipelines.lake.kinds import check_file
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from ulsdram_core.checkpoint import (
    LABELS,
    RECIPE,
    check_folder,
    read_config,
    read_document,
    read_text,
)
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateRequest:
    """What a user asked for."""

    model: Storage
    data: Storage
    split: str = "test"
    slices: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """`NAME=COLUMN` strings; the columns of the model's recipe hold for the others."""
    output: Storage | None = None
    num_workers: int = 1


@dataclass(frozen=True)
class EvaluateResult:
    """The readable table, the summary and all figures."""

    table: str
    summary: dict[str, Any]
    figures: dict[str, Any]

    def write(self, output: Storage) -> None:
        """Write all figures as JSON."""
        text = json.dumps(self.figures, indent=2, ensure_ascii=False) + "\n"
        output.write_bytes(text.encode())


@dataclass(frozen=True)
class _Described:
    """What a model directory says of itself."""

    config: ExtractorConfig
    labels: LabelSet
    columns: Columns


def evaluate(request: EvaluateRequest) -> EvaluateResult:
    """Score a model on one split of a labelled table."""
    if request.output is not None:
        check_file(request.output, request.data, request.model)
    slices = parse_slices(request.slices)
    with request.model.local_copy() as folder:
        model = _described(folder)
    table = open_labelled(
        request.data,
        request.split,
        columns=named_columns(request.columns, model.columns),
        sources=model.config.text.sources,
        uses_pictures=model.config.image is not None,
    )
    _check_gold(table, model.labels)
    if model.config.image is not None:
        warn_of_no_pictures(table)
    members = find_members(slices, table)
    connect_for_workers(request.num_workers)
    evaluation = evaluate_table(
        request.model, table, model.config.image, slices=members, num_workers=request.num_workers
    )
    figures = evaluation.compute()
    return EvaluateResult(readable_table(figures), _summary(figures), figures)


def _described(folder: Path) -> _Described:
    check_folder(folder)
    recipe = tomllib.loads(read_text(folder / RECIPE))
    return _Described(
        read_config(folder),
        read_document(LabelSet, folder / LABELS),
        Columns.model_validate(recipe.get("columns", {})),
    )


def named_columns(pairs: Iterable[str], known: Columns) -> Columns:
    """Return the known columns with those named by `NAME=COLUMN` in their place."""
    pairs = list(pairs)
    given = parse_columns(pairs)
    names = {pair.partition("=")[0] for pair in pairs}
    sources = {name: column for name, column in given.sources.items() if name in names}
    fields = {name: getattr(given, name) for name in names & set(Columns.model_fields)}
    return known.model_copy(update={**fields, "sources": {**known.sources, **sources}})


def _check_gold(table: LabelledTable, labels: LabelSet) -> None:
    """Refuse gold that the model cannot be scored on; say what it can only miss."""
    check_texts(table)
    found = gold_attributes(table)
    unknown = [name for name in found if name not in labels]
    if len(unknown) == len(found):
        raise TableError(
            f"{table.place.uri} has gold of {_first(found)}, expected at least one of the model's "
            f"{len(labels)} attributes ({_first(labels.attributes)}); choose other data or "
            "another model"
        )
    if unknown:
        _log.warning(
            "%s: the model does not know %d of %d attributes of the gold (%s); their values count "
            "as missed",
            table.place.uri,
            len(unknown),
            len(found),
            _first(unknown),
        )
    warn_of_unread_gold(table)


def _first(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "no attribute"


def _summary(figures: dict[str, Any]) -> dict[str, Any]:
    tag = figures["tag"]["micro"]
    return {
        "num_products": figures["num_products"],
        "tag": {name: tag[name] for name in ("precision", "recall", "f1")},
        "cls_jave_f1": figures["cls"]["cls_jave"]["f1"],
        "cls_released_f1": figures["cls"]["cls_released"]["f1"],
        "mae_accuracy": figures["mae"]["accuracy"],
        "calibration_error": figures["calibration"]["ece"],
        "slices": {
            name: {"f1": found["tag"]["micro"]["f1"], "gold": found["tag"]["micro"]["gold"]}
            for name, found in figures["slices"].items()
        },
    }
