"""A pre-training run from the driver's side: check, start, train, publish the model."""

import json
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipelines.cluster.connect import connect_cluster
from pipelines.command.markdown import markdown_table
from pipelines.command.recipes import dump_recipe
from pipelines.labelled.table import LabelledTable
from pipelines.lake.kinds import RUN, check_apart, check_kind, claim
from pipelines.lake.storage import Storage
from pipelines.train.eclip.recipe import EclipRecipe
from pipelines.train.eclip.state import PretrainPlace
from pipelines.train.eclip.table import open_recipe_pairs
from pipelines.train.eclip.worker import pretrain_worker
from pipelines.train.runs import (
    RunRequest,
    differences,
    fingerprint_of,
    finished_summary,
    model_version,
    put_folder,
    run_workers,
    sole_owner,
)
from pipelines.train.state import BEST
from ulsdram_core.eclip.parts import (
    EclipConfig,
    EclipParts,
    assemble_eclip,
    load_eclip,
    save_eclip,
)
from ulsdram_core.eclip.streams import check_norms
from ulsdram_core.encoders.tokenizer import build_tokenizer, load_tokenizer

_log = logging.getLogger(__name__)
SPLITS = ("train", "valid")
# What a model that is there already no longer needs: where its weights came from, how it began.
_ONLY_AT_THE_START = frozenset(
    {
        "model.text_encoder.architecture",
        "model.text_encoder.vectors",
        "model.image_encoder.weights",
        "model.temperature",
        "is_aligned",
    }
)


PretrainRequest = RunRequest[EclipRecipe]


def pretrain(request: PretrainRequest) -> dict[str, Any]:
    """Pre-train to the end, resuming an interrupted run of the same request."""
    started = time.monotonic()
    tables = {split: open_recipe_pairs(request.data, split, request.recipe) for split in SPLITS}
    check_apart(request.data, request.output, read="--data")
    check_kind(request.output, RUN)
    fingerprint = pretrain_fingerprint(request, tables)
    done = None if request.restart else finished_summary(request.output, fingerprint)
    if done is not None:
        _log.info("%s already holds this run's model; --restart trains again", request.output.uri)
        return done
    start = starting_encoders(request, tables["train"])
    check_norms(
        start.model,
        num_streams=request.recipe.pretrain.growth.max_streams,
        num_workers=request.num_workers,
    )
    connect_cluster()
    claim(request.output, RUN)
    with sole_owner(request.output), tempfile.TemporaryDirectory() as scratch:
        place = request.output.join("_start")
        put_folder(partial(save_eclip, start), place, Path(scratch))
        checkpoint = run_workers(pretrain_worker, request, tables, place, fingerprint)
        start.model.load_state_dict(load_file(checkpoint / BEST))
        start.config = start.config.model_copy(update={"is_aligned": True})
        summary = _summary(
            request, start, PretrainPlace.read(checkpoint), seconds=time.monotonic() - started
        )
        start.metrics = {"fingerprint": fingerprint, **summary}
        start.recipe = dump_recipe(request.recipe)
        start.card = pretrain_card(request.recipe, summary)
        put_folder(partial(save_eclip, start), request.output.join("model"), Path(scratch))
        place.delete()
    return summary


def starting_encoders(request: PretrainRequest, table: LabelledTable | None) -> EclipParts:
    """Return encoders as they came, or those of --init-from; a tiny one learns its pieces here."""
    if request.init_from is not None:
        with request.init_from.local_copy() as folder:
            parts = load_eclip(folder)
        _check_config(parts.config, request.recipe.config(), request.init_from)
        return parts
    recipe = request.recipe
    torch.manual_seed(recipe.pretrain.seed)
    encoder = recipe.model.text_encoder
    if encoder.name != "tiny" and not request.random_init:
        tokenizer = load_tokenizer(encoder.location())
    else:
        assert table is not None
        tokenizer = build_tokenizer(table.first_texts(), recipe.run.vocab_size)
    return assemble_eclip(recipe.config(), tokenizer, random_init=request.random_init)


def _check_config(found: EclipConfig, wanted: EclipConfig, place: Storage) -> None:
    """Refuse a recipe that is not the model's: pictures and embeddings would have two sizes."""
    documents = (config.model_dump(mode="json") for config in (found, wanted))
    if unlike := sorted(differences(*documents, ignored=_ONLY_AT_THE_START)):
        has = ", ".join(f"{name}={json.dumps(value)}" for name, value, _ in unlike)
        told = ", ".join(f"{name}={json.dumps(value)}" for name, _, value in unlike)
        options = " ".join(f"--set {name}={json.dumps(value)}" for name, value, _ in unlike)
        raise ValueError(
            f"--init-from {place.uri} has {has}, expected {told} as in the recipe; add {options} "
            "or start from another model"
        )


def pretrain_fingerprint(request: PretrainRequest, tables: dict[str, LabelledTable]) -> str:
    """Identify the run by all that changes its result."""
    words = [model_version(request.init_from), request.num_workers, request.random_init]
    return fingerprint_of(dump_recipe(request.recipe), tables.values(), words)


def _summary(
    request: PretrainRequest, parts: EclipParts, place: PretrainPlace, *, seconds: float
) -> dict[str, Any]:
    return {
        "model": request.output.join("model").uri,
        "model_id": parts.model_id(),
        "targets": request.recipe.pretrain.targets.kind,
        "pairs": place.pairs,
        "steps": place.step,
        "batch_pairs": request.recipe.pretrain.stream_pairs
        * place.growth.streams
        * request.num_workers,
        "scale": round(float(parts.model.scale().detach()), 3),
        "best_recall": place.best_recall,
        "best_step": place.best_step,
        "history": place.history,
        "training_seconds": round(place.seconds, 1),
        "seconds": round(seconds, 1),
        "workers": request.num_workers,
    }


def pretrain_card(recipe: EclipRecipe, summary: dict[str, Any]) -> str:
    """Return README.md of an e-CLIP model directory."""
    columns = ("epoch", "pairs", "loss", "picture_to_text_r1", "text_to_picture_r1", "scale")
    history = [[f"{row[name]:.4g}" for name in columns] for row in summary["history"]]
    image = recipe.model.image_encoder.architecture
    size = recipe.image.size
    facts = [
        (
            "text encoder",
            f"{recipe.model.text_encoder.name}, {recipe.model.pooling} pooling",
        ),
        ("picture encoder", f"{image}, {size}x{size} pixels"),
        ("embedding", f"{recipe.model.dim} numbers, {recipe.model.head} heads"),
        ("targets", summary["targets"]),
        (
            "pairs seen, steps, last batch",
            f"{summary['pairs']}, {summary['steps']}, {summary['batch_pairs']}",
        ),
        ("seed", recipe.pretrain.seed),
    ]
    return f"""# e-CLIP encoders {summary["model_id"]}
{recipe.description}

A reconstruction of e-CLIP from its abstract and public summaries; no figure here is the paper's.

{markdown_table(("", ""), facts)}

On at most {recipe.pretrain.valid_pairs} validation pairs (another listing of the same product
counts as found); the weights are those of the best mean R@1, {summary["best_recall"]:.4f}:

{markdown_table(columns, history)}
"""
