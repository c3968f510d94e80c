"""A training run from the driver's side: check, start, train, calibrate, publish the model."""

import hashlib
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from pipelines.cluster.connect import connect_for_workers
from pipelines.command.recipes import dump_recipe
from pipelines.evaluate.scoring import SWEEP, Evaluation, evaluate_table
from pipelines.labelled.corrections import Corrections, read_corrections
from pipelines.labelled.table import (
    LabelledTable,
    check_texts,
    correction_counts,
    open_labelled,
    warn_of_no_pictures,
    warn_of_unread_gold,
)
from pipelines.lake.kinds import RUN, check_apart, check_kind, claim
from pipelines.lake.storage import Storage
from pipelines.train.extractor.card import model_card
from pipelines.train.extractor.recipe import CalibrationConfig, Recipe
from pipelines.train.extractor.start import check_output, starting_model
from pipelines.train.extractor.state import TrainPlace
from pipelines.train.extractor.worker import train_worker
from pipelines.train.runs import (
    RunRequest,
    fingerprint_of,
    finished_summary,
    model_version,
    put_folder,
    run_workers,
    sole_owner,
)
from pipelines.train.state import BEST
from ulsdram_core.calibration import ThresholdChoice, choose_thresholds, confidence_sweep
from ulsdram_core.checkpoint import save_model
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import OFF, ModelParts, Thresholds

_log = logging.getLogger(__name__)
CERTAINTY = 0.9
"""One-sided confidence with which a target precision must hold on validation data."""


@dataclass(frozen=True)
class TrainRequest(RunRequest[Recipe]):
    """What a user asked for."""

    corrections: Storage | None = None
    init_encoders: Storage | None = None
    """e-CLIP model whose encoders and tokenizer take the place of the recipe's."""


def train(request: TrainRequest) -> dict[str, Any]:
    """Train to the end, resuming an interrupted run of the same request; returns the summary."""
    started = time.monotonic()
    recipe = request.recipe
    corrections = read_corrections(request.corrections) if request.corrections else Corrections()
    tables = {split: _open(request, split, corrections) for split in ("train", "valid")}
    check_output(request.output)
    check_apart(request.data, request.output, read="--data")
    if request.corrections is not None:
        check_apart(request.corrections, request.output, read="--corrections")
    check_kind(request.output, RUN)
    check_texts(tables["train"])
    warn_of_unread_gold(tables["train"])
    if recipe.image is not None:
        warn_of_no_pictures(tables["train"])
    parts = starting_model(
        recipe,
        tables["train"],
        init_from=request.init_from,
        init_encoders=request.init_encoders,
        random_init=request.random_init,
    )
    counts = _counted(tables.values()) if request.corrections else {}
    training, fingerprint = run_fingerprints(request, tables)
    done = None if request.restart else finished_summary(request.output, fingerprint)
    if done is not None:
        _log.info("%s already holds this run's model; --restart trains again", request.output.uri)
        return done
    connect_for_workers(request.num_workers)
    claim(request.output, RUN)
    with sole_owner(request.output), tempfile.TemporaryDirectory() as scratch:
        start = request.output.join("_start")
        put_folder(partial(save_model, parts), start, Path(scratch))
        checkpoint = run_workers(train_worker, request, tables, start, training)
        parts.model.load_state_dict(load_file(checkpoint / BEST))
        parts.model.eval()
        evaluation = _calibrate(request, parts, tables["valid"], Path(scratch))
        summary = _summary(request, parts, TrainPlace.read(checkpoint), evaluation)
        if request.corrections:
            summary["corrections"] = counts
        summary["seconds"] = round(time.monotonic() - started, 1)
        parts.metrics = {"fingerprint": fingerprint, **summary}
        parts.recipe = dump_recipe(recipe)
        parts.card = model_card(parts, recipe, summary)
        put_folder(partial(save_model, parts), request.output.join("model"), Path(scratch))
        start.delete()
    return summary


def _counted(tables: Iterable[LabelledTable]) -> dict[str, Any]:
    """Count what the corrections do, and say so."""
    counts = correction_counts(tables)
    level = logging.WARNING if counts["unmatched"] else logging.INFO
    _log.log(
        level,
        "corrections: %d given, %d about products of train or valid, %d change gold, %d want a "
        "value that the texts lack; products not found: %s",
        counts["given"],
        counts["matched"],
        counts["applied"],
        counts["outside_text"],
        ", ".join(counts["unmatched_ids"]) or "none",
    )
    return counts


def _open(request: TrainRequest, split: str, corrections: Corrections) -> LabelledTable:
    return open_labelled(
        request.data,
        split,
        columns=request.recipe.columns,
        sources=request.recipe.text.sources,
        uses_pictures=request.recipe.image is not None,
        corrections=corrections,
    )


def run_fingerprints(request: TrainRequest, tables: Mapping[str, LabelledTable]) -> tuple[str, str]:
    """Identify what is trained, and what is made of it: another calibration trains nothing."""
    corrections = request.corrections.read_bytes() if request.corrections else b""
    words = [
        model_version(request.init_from),
        hashlib.sha256(corrections).hexdigest(),
        model_version(request.init_encoders),
        request.num_workers,
        request.random_init,
    ]
    recipe = request.recipe
    uncalibrated = recipe.model_copy(update={"calibration": CalibrationConfig()})
    training, whole = (
        fingerprint_of(dump_recipe(kind), tables.values(), words) for kind in (uncalibrated, recipe)
    )
    return training, whole


def _calibrate(
    request: TrainRequest, parts: ModelParts, valid: LabelledTable, scratch: Path
) -> Evaluation:
    """Sweep S_thr on validation data, choose thresholds where asked; returns the sweep's pass."""
    recipe = request.recipe
    # Beside the output, not in a folder of the driver: scoring may run on any node.
    draft = request.output.join("_draft")
    put_folder(partial(save_model, parts), draft, scratch)
    evaluation = evaluate_table(draft, valid, recipe.image, sweep=True, num_workers=1)
    draft.delete()
    limits: dict[str, float] = {}
    if recipe.calibration.choose_threshold:
        best = max(evaluation.sweep.compute(), key=lambda row: row["f1"])
        _settle_range(parts, best["threshold"])
    if recipe.calibration.choose_confidence:
        best = max(_confidence_sweep(evaluation), key=lambda row: row["f1"])
        _settle_range(parts, SWEEP[0])
        limits = dict.fromkeys(parts.labels.attributes, best["confidence"])
    target = recipe.calibration.target_precision
    if target is not None:
        rows = evaluation.metrics.tag.compute()["per_attribute"]
        gold = {name: row["gold"] for name, row in rows.items()}
        choices = choose_thresholds(evaluation.judged, gold, target, certainty=CERTAINTY)
        limits = value_limits(choices, parts.labels)
    if limits:
        parts.config = parts.config.model_copy(update={"thresholds": Thresholds(value=limits)})
    return evaluation


def _settle_range(parts: ModelParts, threshold: float) -> None:
    chosen = parts.config.range.model_copy(update={"threshold": threshold})
    parts.config = parts.config.model_copy(update={"range": chosen})


def _confidence_sweep(evaluation: Evaluation) -> list[dict[str, float]]:
    """Score every lowest confidence of the grid, 0 for all values included."""
    judged = evaluation.judged
    return confidence_sweep(
        [value.confidence for value in judged],
        [value.correct for value in judged],
        evaluation.sweep.gold,
        (0.0, *SWEEP),
    )


def value_limits(
    choices: Mapping[str, ThresholdChoice | None], labels: LabelSet
) -> dict[str, float]:
    """Return the lowest confidence of every attribute's values that reaches a target precision.

    An attribute that no threshold brings there, or that validation never saw, is not extracted.
    """
    # Where only confidences of exactly 1 reach it, the next lower limit keeps just those.
    highest = math.nextafter(OFF, 0.0)
    chosen = {name: choices.get(name) for name in labels.attributes}
    return {name: min(c.threshold, highest) if c else OFF for name, c in chosen.items()}


def _summary(
    request: TrainRequest, parts: ModelParts, place: TrainPlace, evaluation: Evaluation
) -> dict[str, Any]:
    best = next(row for row in place.history if row["epoch"] == place.best_epoch)
    sweep = evaluation.sweep.compute()
    assert len(sweep) == len(SWEEP)
    return {
        "model": request.output.join("model").uri,
        "model_id": parts.model_id(),
        "valid": best,
        "epochs": len(place.history),
        "history": place.history,
        "steps": place.step,
        "training_seconds": round(place.seconds, 1),
        "attributes": len(parts.labels),
        "threshold": parts.config.range.threshold,
        "threshold_sweep": sweep,
        "confidence_sweep": _confidence_sweep(evaluation),
        "value_thresholds": parts.config.thresholds.value,
        "calibration_error": evaluation.metrics.compute()["calibration"]["ece"],
        "workers": request.num_workers,
    }
