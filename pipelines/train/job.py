"""A training run from the driver's side: check, start, train, calibrate, publish the model."""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.data
import torch
from ray.data import ExecutionOptions
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors.torch import load_file

from pipelines.cluster import connect_cluster
from pipelines.corrections import Corrections, read_corrections
from pipelines.evaluate import (
    SWEEP,
    Evaluation,
    decoded_dataset,
    evaluate_table,
    kept_if_small,
)
from pipelines.labelled import LabelledTable, check_texts, learn_labels, open_labelled
from pipelines.recipe import Recipe, dump_recipe
from pipelines.storage import Storage
from pipelines.train.card import model_card
from pipelines.train.state import BEST, PROGRESS, Progress
from pipelines.train.worker import WorkerSettings, train_worker
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
    start = _starting_model(request, tables["train"])
    fingerprint = run_fingerprint(request, tables)
    done = find_finished(request, fingerprint)
    if done is not None:
        log.info("%s already holds this run's model; --restart trains again", request.output.uri)
        return done
    connect_cluster()
    with tempfile.TemporaryDirectory() as scratch:
        place = request.output.join("_start")
        put_model(start, place, Path(scratch))
        checkpoint = _run_workers(request, tables, place, fingerprint)
        parts, progress = _best_model(start, checkpoint)
        evaluation = _calibrate(parts, recipe, tables["valid"], Path(scratch))
        summary = _summary(request, parts, progress, evaluation)
        summary["seconds"] = round(time.monotonic() - started, 1)
        parts.metrics = {"fingerprint": fingerprint, **summary}
        parts.recipe = dump_recipe(recipe)
        parts.card = model_card(parts, recipe, summary)
        put_model(parts, request.output.join("model"), Path(scratch))
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
        names = [table.columns.sources.get(source, source) for source in table.sources]
        texts = table.scan().select(names).head(200_000).collect(engine="streaming")
        lines = [text for column in texts.get_columns() for text in column.drop_nulls()]
        tokenizer = build_tokenizer(lines, recipe.labels.vocab_size)
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
    """Identify the run: the same request resumes, a changed one starts anew."""
    digest = hashlib.sha256(dump_recipe(request.recipe).encode())
    for table in tables.values():
        for name in table.files:
            info = table.place.sibling(name).info()
            version = info.get("ETag") or info.get("mtime")
            digest.update(f"{name} {info.get('size')} {version}".encode())
    for place in (request.init_from, request.corrections, request.init_encoders):
        digest.update(f"{place.uri if place else ''} {request.num_workers}".encode())
    return digest.hexdigest()[:16]


def find_finished(request: TrainRequest, fingerprint: str) -> dict[str, Any] | None:
    """Return the summary of a finished run of this very request, if the output holds one."""
    stored = request.output.join("model", "metrics.json")
    if request.restart or not stored.exists():
        return None
    metrics: dict[str, Any] = json.loads(stored.read_bytes())
    if metrics.pop("fingerprint", None) != fingerprint:
        return None
    return {**metrics, "already_trained": True}


def _run_workers(
    request: TrainRequest,
    tables: Mapping[str, LabelledTable],
    start: Storage,
    fingerprint: str,
) -> Path:
    """Train on the cluster; returns a local folder with the last checkpoint."""
    recipe, output = request.recipe, request.output
    checkpoints = output.join("checkpoints")
    name = f"run-{fingerprint}"
    if request.restart:
        checkpoints.join(name).delete()
    use_gpu = torch.cuda.is_available()
    settings = WorkerSettings(
        recipe=recipe,
        start=start,
        output=output,
        train=tables["train"],
        valid=tables["valid"],
        num_threads=max(1, torch.get_num_threads() // request.num_workers),
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings},
        scaling_config=ScalingConfig(num_workers=request.num_workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=name,
            storage_path=checkpoints.path,
            storage_filesystem=checkpoints.arrow,
            failure_config=FailureConfig(max_failures=recipe.run.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
        datasets={split: _dataset(table, recipe) for split, table in tables.items()},
        # Validation is read whole by every worker, which scores its part: no row is lost to an
        # equal split. Order is kept so that a resumed run meets the same batches.
        dataset_config=DataConfig(
            datasets_to_split=["train"],
            execution_options=ExecutionOptions(preserve_order=True),
            enable_shard_locality=False,
        ),
    )
    result = trainer.fit()
    assert result.checkpoint is not None, "the last epoch reports a checkpoint"
    return Path(result.checkpoint.to_directory())


def _dataset(table: LabelledTable, recipe: Recipe) -> ray.data.Dataset:
    side = recipe.image.size if recipe.image else 0
    pictures = max(1, len(table.picture_columns))
    num_bytes = table.num_rows * (3 * side**2 * pictures + 1000)
    dataset = decoded_dataset(table, recipe.image)
    return kept_if_small(dataset, num_bytes, recipe.run.keep_decoded_mb * 1_000_000)


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


def put_model(parts: ModelParts, place: Storage, scratch: Path) -> None:
    """Write a model directory anywhere; elsewhere than on this machine config.json comes last."""
    if place.is_local:
        save_model(parts, place.path)
        return
    folder = save_model(parts, scratch / "upload")
    names = sorted(path.name for path in folder.iterdir())
    for name in [*(n for n in names if n != "config.json"), "config.json"]:
        place.join(name).write_bytes((folder / name).read_bytes())


def with_target(recipe: Recipe, target_precision: float | None) -> Recipe:
    """Return the recipe with a wanted precision."""
    if target_precision is None:
        return recipe
    wanted = recipe.calibration.model_copy(update={"target_precision": target_precision})
    return recipe.model_copy(update={"calibration": wanted})
