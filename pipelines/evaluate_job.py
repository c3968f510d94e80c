"""The evaluate command behind its script: open the model, score, write JSON."""

import json
from dataclasses import dataclass
from typing import Any

from pipelines.cluster import connect_cluster
from pipelines.evaluate import evaluate_table, parse_slices, readable_table
from pipelines.labelled import open_labelled, warn_of_unread_gold
from pipelines.storage import Storage
from pipelines.tables import Columns
from ulsdram_core.checkpoint import read_config


@dataclass(frozen=True)
class EvaluateRequest:
    """What a user asked for."""

    model: Storage
    data: Storage
    split: str = "test"
    slices: tuple[str, ...] = ()
    output: Storage | None = None
    num_workers: int = 1


@dataclass(frozen=True)
class EvaluateResult:
    """The readable table and the summary."""

    table: str
    summary: dict[str, Any]


def evaluate(request: EvaluateRequest) -> EvaluateResult:
    """Score a model on one split of a labelled table."""
    slices = parse_slices(request.slices)
    with request.model.local_copy() as folder:
        config = read_config(folder)
    table = open_labelled(
        request.data,
        request.split,
        columns=Columns(),
        sources=config.text.sources,
        uses_pictures=config.image is not None,
    )
    warn_of_unread_gold(table)
    connect_cluster()
    evaluation = evaluate_table(
        request.model, table, config.image, slices=slices, num_workers=request.num_workers
    )
    figures = evaluation.compute()
    if request.output is not None:
        text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
        request.output.write_bytes(text.encode())
    tag = figures["tag"]["micro"]
    summary = {
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
    return EvaluateResult(readable_table(figures), summary)
