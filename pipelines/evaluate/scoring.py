"""Scoring a model on a labelled table, distributed: all metrics, per attribute, per slice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import torch
from pydantic import TypeAdapter

from pipelines.evaluate.slices import ROW, Members, is_member, numbered_dataset
from pipelines.labelled.pixels import BATCH, products_with_pixels, with_pixels
from pipelines.labelled.table import LabelledTable
from pipelines.lake.storage import Storage
from ulsdram_core.checkpoint import load_model
from ulsdram_core.counts import Counts, Tally
from ulsdram_core.extractor import Extractor
from ulsdram_core.image import ImageConfig
from ulsdram_core.metrics import ExtractionMetrics, JudgedValue, gold_spans, judge_values
from ulsdram_core.parts import ExtractorConfig, ModelParts
from ulsdram_core.process import tune_process
from ulsdram_core.schema import DecodedProduct, Extraction, GoldSpan, Product

# Grid of S_thr that Fig. 8 is drawn over.
SWEEP = tuple(round(0.05 * step, 2) for step in range(2, 20))


@dataclass(slots=True)
class SweepCounts(Tally):
    """Values at every S_thr of the grid."""

    at: list[Counts] = field(default_factory=lambda: [Counts() for _ in SWEEP])

    @property
    def gold(self) -> int:
        """Gold values, the same at every S_thr."""
        return self.at[0].gold

    def update(self, gold: Sequence[GoldSpan], extraction: Extraction) -> None:
        """Count one product, extracted with a range down to the grid's lowest threshold."""
        scores = {entry.attribute: entry.score for entry in extraction.range}
        num_gold = len(gold_spans(gold))
        # Without a range every threshold keeps every value.
        judged = [(scores.get(v.attribute, 1.0), v.correct) for v in judge_values(gold, extraction)]
        for threshold, counts in zip(SWEEP, self.at, strict=True):
            kept = [correct for score, correct in judged if score > threshold]
            counts.merge(Counts(sum(kept), len(kept), num_gold))

    def compute(self) -> list[dict[str, float]]:
        """Return precision, recall and F1 at every threshold."""
        return [
            {"threshold": threshold, **counts.rates()}
            for threshold, counts in zip(SWEEP, self.at, strict=True)
        ]


@dataclass
class Evaluation:
    """What one pass over a labelled table gives; mergeable."""

    metrics: ExtractionMetrics = field(default_factory=ExtractionMetrics)
    slices: dict[str, ExtractionMetrics] = field(default_factory=dict)
    sweep: SweepCounts = field(default_factory=SweepCounts)
    judged: list[JudgedValue] = field(default_factory=list)

    def merge(self, other: "Evaluation") -> None:
        """Add another worker's counts."""
        self.metrics.merge(other.metrics)
        for name, metrics in other.slices.items():
            self.slices.setdefault(name, ExtractionMetrics()).merge(metrics)
        self.sweep.merge(other.sweep)
        self.judged += other.judged

    def compute(self) -> dict[str, Any]:
        """Return every figure, nested, for JSON."""
        return {
            **self.metrics.compute(),
            "slices": {name: metrics.compute() for name, metrics in self.slices.items()},
        }


_AS_JSON = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class EvaluateSettings:
    """What a scoring actor needs; picklable."""

    model: Storage
    table: LabelledTable
    slices: Members
    sweep: bool
    num_threads: int


class EvaluateRows:
    """Ray Data stage: decoded labelled rows -> one row with the counts of the batch as JSON."""

    def __init__(self, settings: EvaluateSettings) -> None:
        tune_process(settings.num_threads)
        self.settings = settings
        with settings.model.local_copy() as folder:
            parts = load_model(folder)
        self.extractor = Extractor(lowered(parts) if settings.sweep else parts)

    def __call__(self, rows: pa.Table) -> pa.Table:
        found = evaluate_rows(rows, self.settings.table, self.extractor, self.settings.slices)
        return pa.table({"evaluation": [_AS_JSON.dump_json(found)]})


def lowered(parts: ModelParts) -> ModelParts:
    """Return the model with a range that reaches down to the sweep's lowest threshold."""
    lowest = parts.config.range.model_copy(update={"threshold": SWEEP[0]})
    config: ExtractorConfig = parts.config.model_copy(
        update={"range": lowest, "thresholds": type(parts.config.thresholds)()}
    )
    return ModelParts(config, parts.model, parts.labels, parts.tokenizer)


def extract_rows(
    rows: pa.Table, table: LabelledTable, extractor: Extractor
) -> Iterator[tuple[Product, Extraction]]:
    """Return the products of decoded rows, each with what is extracted from it."""
    size = extractor.config.image.size if extractor.config.image else 1
    labelled = products_with_pixels(rows, table, size)
    extractions = extractor.extract_decoded(
        [DecodedProduct(p.product_id, p.texts, pixels, p.category) for p, pixels in labelled]
    )
    return zip((product for product, _ in labelled), extractions, strict=True)


def evaluate_rows(
    rows: pa.Table,
    table: LabelledTable,
    extractor: Extractor,
    slices: Members,
) -> Evaluation:
    """Score decoded rows in this process; with slices, rows carry their numbers."""
    numbers = rows[ROW].to_numpy() if slices else np.zeros(0, dtype=np.int64)
    members = {name: is_member(packed, numbers) for name, packed in slices.items()}
    evaluation = Evaluation(slices={name: ExtractionMetrics() for name in slices})
    for place, (product, extraction) in enumerate(extract_rows(rows, table, extractor)):
        gold = product.gold or ()
        evaluation.metrics.update(gold, extraction)
        evaluation.sweep.update(gold, extraction)
        evaluation.judged += judge_values(gold, extraction)
        for name, inside in members.items():
            if inside[place]:
                evaluation.slices[name].update(gold, extraction)
    return evaluation


def evaluate_table(
    model: Storage,
    table: LabelledTable,
    image: ImageConfig | None,
    *,
    slices: Members | None = None,
    sweep: bool = False,
    num_workers: int = 1,
) -> Evaluation:
    """Score a model on a labelled table with a pool of actors."""
    settings = EvaluateSettings(
        model=model,
        table=table,
        slices=slices or {},
        sweep=sweep,
        num_threads=max(1, torch.get_num_threads() // num_workers),
    )
    rows = numbered_dataset(table) if slices else table.dataset()
    dataset = with_pixels(rows, table, image).map_batches(
        EvaluateRows,
        fn_constructor_args=(settings,),
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        num_cpus=1,
        num_gpus=1 if torch.cuda.is_available() else 0,
    )
    total = Evaluation()
    for row in dataset.iter_rows():
        total.merge(_AS_JSON.validate_json(row["evaluation"]))
    return total


def readable_table(evaluation: Mapping[str, Any]) -> str:
    """Return the main figures as a text table, attributes by frequency."""
    lines = [f"{'':28s} {'P':>7s} {'R':>7s} {'F1':>7s} {'gold':>8s}"]

    def add(name: str, row: Mapping[str, float]) -> None:
        figures = " ".join(f"{100 * row[key]:7.2f}" for key in ("precision", "recall", "f1"))
        lines.append(f"{name[:28]:28s} {figures} {row['gold']:8.0f}")

    add("TAG micro", evaluation["tag"]["micro"])
    add("CLS (JAVE)", evaluation["cls"]["cls_jave"])
    add("CLS (released)", evaluation["cls"]["cls_released"])
    for name, found in evaluation["slices"].items():
        add(f"slice {name}", found["tag"]["micro"])
    rows = evaluation["tag"]["per_attribute"].items()
    for name, row in sorted(rows, key=lambda item: (-item[1]["gold"], item[0])):
        add(f"  {name}", row)
    lines.append(f"MAE accuracy {100 * evaluation['mae']['accuracy']:.2f}")
    lines.append(f"calibration error {100 * evaluation['calibration']['ece']:.2f}")
    return "\n".join(lines)
