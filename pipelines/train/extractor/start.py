"""What a training run starts from: a checked output, and a new model or a trained one."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import torch

from pipelines.labelled.label_config import LabelConfig
from pipelines.labelled.table import LabelledTable, TableError, learn_labels
from pipelines.lake.storage import Storage
from pipelines.train.extractor.recipe import Recipe
from pipelines.train.runs import differences
from ulsdram_core.checkpoint import check_model_target, load_model
from ulsdram_core.eclip.bridge import assemble_from_eclip
from ulsdram_core.eclip.parts import load_eclip
from ulsdram_core.encoders.tokenizer import build_tokenizer, load_tokenizer
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, ModelParts, Thresholds, assemble

COMPARED = ("model", "text", "image")
# Where a model's first weights came from, and what building it filled in: a model that starts
# from a trained one may differ in these.
NOT_COMPARED = frozenset({"model.text_encoder.architecture", "model.image_encoder.weights"})


def check_output(output: Storage) -> None:
    """Refuse, before anything is trained, an output that could not hold the model."""
    if output.is_local:
        place = Path(output.path)
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        if not there.is_dir():
            raise ValueError(f"--out {output.uri}: {there} is a file, expected a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ValueError(f"--out {output.uri}: {there} cannot be written to; choose another")
        check_model_target(place / "model")
    elif output.exists() and not output.is_folder():
        raise ValueError(f"--out {output.uri} is a file, expected a folder")


def starting_model(
    recipe: Recipe,
    table: LabelledTable,
    *,
    init_from: Storage | None = None,
    init_encoders: Storage | None = None,
    random_init: bool = False,
) -> ModelParts:
    """Return the model whose training begins, with the attributes of `table`."""
    scope = recipe.labels.scope_to_category
    if scope and table.columns.category not in table.names:
        raise TableError(
            f"labels.scope_to_category is set, but {table.place.uri} has no column "
            f"{table.columns.category!r}; name it with --set columns.category=NAME, or unset it"
        )
    labels = learn_labels(table, recipe.labels)
    if init_from is not None:
        return _warm_start(recipe, labels, init_from)
    torch.manual_seed(recipe.fit.seed)
    if init_encoders is not None:
        with init_encoders.local_copy() as folder:
            return assemble_from_eclip(extractor_config(recipe), labels, load_eclip(folder))
    location = recipe.model.text_encoder.tokenizer_location()
    if location is None or random_init:
        tokenizer = build_tokenizer(table.first_texts(), recipe.labels.vocab_size)
    else:
        tokenizer = load_tokenizer(location)
    return assemble(extractor_config(recipe), labels, tokenizer, random_init=random_init)


def extractor_config(recipe: Recipe) -> ExtractorConfig:
    """Return what the recipe says about extraction."""
    return ExtractorConfig(
        model=recipe.model,
        text=recipe.text,
        image=recipe.image,
        range=recipe.range,
        scope_to_category=recipe.labels.scope_to_category,
    )


def _warm_start(recipe: Recipe, labels: LabelSet, init_from: Storage) -> ModelParts:
    """Start from a trained model: its weights and tokenizer; its labels must hold the data's."""
    with init_from.local_copy() as folder:
        parts = load_model(folder)
    _check_same_build(recipe, parts.config, init_from)
    unknown = [name for name in labels.attributes if name not in parts.labels]
    if unknown:
        raise ValueError(
            f"--init-from {init_from.uri} knows {len(parts.labels)} attributes, the data "
            f"also has {', '.join(unknown[:5])}; train without --init-from, or drop them"
        )
    parts.labels = _renewed(parts.labels, labels, recipe.labels)
    asked = extractor_config(recipe)
    parts.config = parts.config.model_copy(
        update={
            "range": asked.range,
            "scope_to_category": asked.scope_to_category,
            "thresholds": Thresholds(),
        }
    )
    return parts


def _check_same_build(recipe: Recipe, found: ExtractorConfig, init_from: Storage) -> None:
    """Refuse a recipe that describes another model than the one whose weights it starts from."""
    wanted = extractor_config(recipe).model_dump(mode="json", include=set(COMPARED))
    given = found.model_dump(mode="json", include=set(COMPARED))
    different = list(differences(given, wanted, ignored=NOT_COMPARED))
    if not different:
        return
    told = ", ".join(f"{key} = {_toml(old)} (recipe: {_toml(new)})" for key, old, new in different)
    options = " ".join(f"--set {shlex.quote(f'{key}={_toml(old)}')}" for key, old, _ in different)
    raise ValueError(
        f"--init-from {init_from.uri} has {told}, expected a model built as the recipe says; "
        f"keep the model's with {options}, or train without --init-from"
    )


def _toml(value: Any) -> str:
    """Return a value as `--set` reads it, without what is unset."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        given = {name: item for name, item in value.items() if item is not None}
        return "{" + ", ".join(f"{name} = {_toml(item)}" for name, item in given.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _renewed(known: LabelSet, learned: LabelSet, config: LabelConfig) -> LabelSet:
    """Return the known labels with what the new data says of their categories and values."""
    order = known.attributes
    categories = known.category_attributes
    if learned.category_attributes is not None:
        allowed = {name: set(names) for name, names in (categories or {}).items()}
        for category, names in learned.category_attributes.items():
            allowed.setdefault(category, set()).update(names)
        categories = {
            category: tuple(name for name in order if name in names)
            for category, names in sorted(allowed.items())
        }
    # What the new data does not name stays as it was known.
    single = {name for name in known.single if name not in learned} | set(learned.single)
    return LabelSet(
        attributes=order,
        category_attributes=categories,
        single=tuple(name for name in order if name in single) if config.learn_single else (),
    )
