"""A training run from the driver's side: check, start, train, calibrate, publish the model."""

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipelines.cluster import connect_cluster
from pipelines.corrections import Corrections, read_corrections
from pipelines.evaluate import SWEEP, Evaluation, evaluate_table
from pipelines.labelled import (
    LabelledTable,
    check_texts,
    learn_labels,
    open_labelled,
    warn_of_unread_gold,
)
from pipelines.recipe import Recipe, dump_recipe
from pipelines.storage import Storage
from pipelines.train.card import model_card
from pipelines.train.runs import (
    fingerprint_of,
    finished_summary,
    put_folder,
    run_workers,
)
from pipelines.train.state import BEST, PROGRESS, Progress
from pipelines.train.worker import train_worker
from ulsdram_core.calibration import choose_thresholds
from ulsdram_core.checkpoint import load_model, save_model
from ulsdram_core.eclip.bridge import assemble_from_eclip
from ulsdram_core.eclip.parts import load_eclip
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, ModelParts, Thresholds, assemble
from ulsdram_core.tokenizer import build_tokenizer, load_tokenizer

log = logging.getLogger(__name__)
CERTAINTY = 0.9
"""One-sided confidence with which a target precision must hold on validation data."""


@dataclass(frozen=True)
class TrainRequest:
    """What a user asked for."""

    recipe: Recipe
    data: Storage
    output: Storage
    num_workers: int = 1
    init_from: Storage | None = None
    corrections: Storage | None = None
    init_encoders: Storage | None = None
    """e-CLIP model whose encoders and tokenizer take the place of the recipe's."""
    random_init: bool = False
    restart: bool = False


def train(request: TrainRequest) -> dict[str, Any]:
    """Train to the end, resuming an interrupted run of the same request; returns the summary."""
    started = time.monotonic()
    recipe = request.recipe
    corrections = read_corrections(request.corrections) if request.corrections else Corrections()
    tables = {
        split: _open(request, split, corrections if split == "train" else Corrections())
        for split in ("train", "valid")
    }
    check_texts(tables["train"])
    warn_of_unread_gold(tables["train"])
    start = _starting_model(request, tables["train"])
    fingerprint = run_fingerprint(request, tables)
    done = None if request.restart else finished_summary(request.output, fingerprint)
    if done is not None:
        log.info("%s already holds this run's model; --restart trains again", request.output.uri)
        return done
    connect_cluster()
    with tempfile.TemporaryDirectory() as scratch:
        place = request.output.join("_start")
        put_folder(partial(save_model, start), place, Path(scratch))
        checkpoint = run_workers(train_worker, request, tables, place, fingerprint)
        parts, progress = _best_model(start, checkpoint)
        evaluation = _calibrate(parts, recipe, tables["valid"], Path(scratch))
        summary = _summary(request, parts, progress, evaluation)
        summary["seconds"] = round(time.monotonic() - started, 1)
        parts.metrics = {"fingerprint": fingerprint, **summary}
        parts.recipe = dump_recipe(recipe)
        parts.card = model_card(parts, recipe, summary)
        put_folder(partial(save_model, parts), request.output.join("model"), Path(scratch))
        place.delete()
    return summary


def _open(request: TrainRequest, split: str, corrections: Corrections) -> LabelledTable:
    return open_labelled(
        request.data,
        split,
        columns=request.recipe.columns,
        sources=request.recipe.text.sources,
        uses_pictures=request.recipe.image is not None,
        corrections=corrections,
    )


def _starting_model(request: TrainRequest, table: LabelledTable) -> ModelParts:
    recipe = request.recipe
    labels = learn_labels(
        table,
        min_count=recipe.labels.min_count,
        with_categories=recipe.labels.scope_to_category,
    )
    if request.init_from is not None:
        return _warm_start(request, labels)
    torch.manual_seed(recipe.fit.seed)
    if request.init_encoders is not None:
        with request.init_encoders.local_copy() as folder:
            return assemble_from_eclip(extractor_config(recipe), labels, load_eclip(folder))
    location = recipe.model.text_encoder.tokenizer_location()
    if location is None or request.random_init:
        tokenizer = build_tokenizer(table.first_texts(), recipe.labels.vocab_size)
    else:
        tokenizer = load_tokenizer(location)
    return assemble(extractor_config(recipe), labels, tokenizer, random_init=request.random_init)


def extractor_config(recipe: Recipe) -> ExtractorConfig:
    """Return what the recipe says about extraction."""
    return ExtractorConfig(
        model=recipe.model,
        text=recipe.text,
        image=recipe.image,
        range=recipe.range,
        scope_to_category=recipe.labels.scope_to_category,
    )


def _warm_start(request: TrainRequest, labels: LabelSet) -> ModelParts:
    """Start from a trained model: its weights and tokenizer; its labels must hold the data's."""
    assert request.init_from is not None
    with request.init_from.local_copy() as folder:
        parts = load_model(folder)
    unknown = [name for name in labels.attributes if name not in parts.labels]
    if unknown:
        raise ValueError(
            f"--init-from {request.init_from.uri} knows {len(parts.labels)} attributes, the data "
            f"also has {', '.join(unknown[:5])}; train without --init-from, or drop them"
        )
    parts.config = parts.config.model_copy(update={"thresholds": Thresholds()})
    return parts


def run_fingerprint(request: TrainRequest, tables: Mapping[str, LabelledTable]) -> str:
    """Identify the run by all that changes its result."""
    starts = (request.init_from, request.corrections, request.init_encoders)
    words = [place.uri if place else "" for place in starts]
    return fingerprint_of(
        dump_recipe(request.recipe),
        tables.values(),
        [*words, request.num_workers, request.random_init],
    )


def _best_model(parts: ModelParts, checkpoint: Path) -> tuple[ModelParts, Progress]:
    progress = Progress(**json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))
    parts.model.load_state_dict(load_file(checkpoint / BEST))
    parts.model.eval()
    return parts, progress


def _calibrate(
    parts: ModelParts, recipe: Recipe, valid: LabelledTable, scratch: Path
) -> Evaluation:
    """Sweep S_thr on validation data, choose thresholds where asked; returns the sweep's pass."""
    draft = save_model(parts, scratch / "draft")
    evaluation = evaluate_table(Storage.of(draft), valid, recipe.image, sweep=True, num_workers=1)
    if recipe.calibration.choose_threshold:
        best = max(evaluation.sweep.compute(), key=lambda row: row["f1"])
        chosen = parts.config.range.model_copy(update={"threshold": best["threshold"]})
        parts.config = parts.config.model_copy(update={"range": chosen})
    target = recipe.calibration.target_precision
    if target is not None:
        gold = {
            name: row["gold"]
            for name, row in evaluation.metrics.tag.compute()["per_attribute"].items()
        }
        choices = choose_thresholds(evaluation.judged, gold, target, certainty=CERTAINTY)
        # No threshold reaches the target: the attribute is not extracted at all.
        limits = {n: c.threshold if c else 1.0 for n, c in choices.items() if n in parts.labels}
        parts.config = parts.config.model_copy(update={"thresholds": Thresholds(value=limits)})
    return evaluation


def _summary(
    request: TrainRequest, parts: ModelParts, progress: Progress, evaluation: Evaluation
) -> dict[str, Any]:
    best = next(row for row in progress.history if row["epoch"] == progress.best_epoch)
    sweep = evaluation.sweep.compute()
    assert len(sweep) == len(SWEEP)
    return {
        "model": request.output.join("model").uri,
        "model_id": parts.model_id(),
        "valid": best,
        "epochs": len(progress.history),
        "history": progress.history,
        "steps": progress.step,
        "training_seconds": round(progress.seconds, 1),
        "attributes": len(parts.labels),
        "threshold": parts.config.range.threshold,
        "threshold_sweep": sweep,
        "value_thresholds": parts.config.thresholds.value,
        "calibration_error": evaluation.metrics.compute()["calibration"]["ece"],
        "workers": request.num_workers,
    }


def with_target(recipe: Recipe, target_precision: float | None) -> Recipe:
    """Return the recipe with a wanted precision."""
    if target_precision is None:
        return recipe
    wanted = recipe.calibration.model_copy(update={"target_precision": target_precision})
    return recipe.model_copy(update={"calibration": wanted})
