"""Category and binary labels by fine-tuned encoders: what tasks.py does with fixed vectors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from pipelines.benchmark.eclip.tasks import (
    MODALITIES,
    Figure,
    ProbeSettings,
    System,
    binary_labels,
    check_classes,
    class_labels,
    classified,
    recognised,
    sampled_rows,
)
from pipelines.benchmark.eclip.vectors import decoded_products
from pipelines.labelled.table import LabelledTable
from ulsdram_core.eclip.finetune import FineTuneConfig, Modality, classify_pairs, fine_tune
from ulsdram_core.eclip.pairs import Pair, make_pair
from ulsdram_core.schema import Product

_ROW = "_row"


@dataclass(frozen=True)
class FineTuning:
    """How encoders are fine-tuned, on at most as many rows as a probe is fitted on."""

    tables: Mapping[str, LabelledTable]
    config: FineTuneConfig
    settings: ProbeSettings


def fine_tuned_classes(system: System, column: str, tuning: FineTuning) -> Iterator[Figure]:
    """Yield category classification by each modality; rows without text or picture are left out."""
    _, labels = class_labels(system, column)
    rows = _rows(system, labels, tuning, splits=("test",), name=column)
    for modality in MODALITIES:
        answers = _answers(system, rows, tuning, modality)["test"]
        predicted = (answers[0].argmax(1), answers[1])
        note = f"{len(rows['train'].pairs)} trained on, "
        yield classified(system, column, modality, "fine-tune", predicted, note=note)


def fine_tuned_binary(
    system: System, name: str, expression: pl.Expr, tuning: FineTuning
) -> Iterator[Figure]:
    """Yield any binary label by each modality, the threshold chosen on valid."""
    labels = binary_labels(system, name, expression)
    rows = _rows(system, labels, tuning, splits=("valid", "test"), name=name)
    for modality in MODALITIES:
        answers = _answers(system, rows, tuning, modality)
        note = f"{len(rows['train'].pairs)} trained on, "
        yield recognised(system, name, modality, "fine-tune", answers, note=note)


@dataclass(frozen=True)
class _LabelledPairs:
    pairs: list[Pair]
    labels: Tensor


def _rows(
    system: System,
    labels: Mapping[str, Tensor],
    tuning: FineTuning,
    *,
    splits: tuple[str, ...],
    name: str,
) -> dict[str, _LabelledPairs]:
    """Return a sample of train and all rows of `splits`, decoded once for all modalities."""
    places = {split: torch.arange(len(labels[split])) for split in splits}
    # Drawn before anything is decoded: of a large table most pictures are never looked at.
    places["train"] = sampled_rows(labels["train"], tuning.settings)
    found = {}
    for split, wanted in places.items():
        pairs = usable_pairs(system, tuning.tables[split], wanted.tolist())
        found[split] = _LabelledPairs(list(pairs.values()), labels[split][list(pairs)])
    check_classes(found["train"].labels, name)
    return found


def usable_pairs(system: System, table: LabelledTable, rows: list[int]) -> dict[int, Pair]:
    """Return decoded pairs by row; rows whose text or picture cannot be used are left out."""
    chosen = (
        table.scan()
        .select(table.names)
        .with_row_index(_ROW)
        .filter(pl.col(_ROW).is_in(rows))
        .collect(engine="streaming")
        .sort(_ROW)
    )
    embedder = system.embedder
    encoded: pa.Table = chosen.drop(_ROW).to_arrow()
    found = {}
    products = decoded_products(encoded, table, embedder.parts.config.image)
    for row, product in zip(chosen[_ROW], products, strict=True):
        bare = Product(product.product_id, product.texts)
        pair = make_pair(bare, product.pictures, embedder.text, None)
        if pair is not None:
            found[row] = pair
    if not found:
        raise ValueError(
            f"none of {len(rows)} rows of {table.place.uri} has a usable text and picture, "
            "expected some to fine-tune on; leave --fine-tune out"
        )
    return found


def _answers(
    system: System, rows: Mapping[str, _LabelledPairs], tuning: FineTuning, modality: Modality
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return (logits, label) of every split but train."""
    size = system.embedder.parts.config.image.size
    train = rows["train"]
    model = fine_tune(
        system.embedder.model,
        train.pairs,
        train.labels.tolist(),
        tuning.config,
        picture_size=size,
        modality=modality,
    )
    return {
        split: (classify_pairs(model, part.pairs, picture_size=size), part.labels)
        for split, part in rows.items()
        if split != "train"
    }
