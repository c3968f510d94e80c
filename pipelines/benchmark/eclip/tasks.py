"""The tasks on vectors: category, any binary label, clustering; matching is in match.py.

A figure is one row: task, system, modality, way, and what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipelines.benchmark.eclip.vectors import SplitVectors
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.finetune import Modality
from ulsdram_core.eclip.probe import LinearProbe, choose_probe, k_means
from ulsdram_core.eclip.scores import (
    accuracy,
    adjusted_rand,
    auc,
    best_threshold,
    f1_at,
    macro_f1,
    normalized_information,
    purity,
)
from ulsdram_core.schema import DecodedProduct
from ulsdram_core.seeding import generator_of

MODALITIES: tuple[Modality, ...] = ("text", "picture", "both")
UNKNOWN_CLASS, NO_LABEL = -1, -2  # what stands for a class


@dataclass(frozen=True)
class Figure:
    """One line of the report; `values` by name, `detail` says over how much."""

    task: str
    system: str
    modality: str
    way: str
    values: Mapping[str, float]
    detail: str = ""


@dataclass(frozen=True)
class System:
    """A model under test with its vectors of every split."""

    name: str
    embedder: Embedder
    splits: Mapping[str, SplitVectors]


@dataclass(frozen=True)
class ProbeSettings:
    """What a linear probe may cost."""

    max_rows: int = 10_000
    steps: int = 40
    seed: int = 0


def classify(
    system: System, column: str, settings: ProbeSettings, *, template: str = "{}"
) -> list[Figure]:
    """Return category classification: a linear probe of each modality, zero-shot by class names.

    Classes are those of the train split; test rows of others count as errors of accuracy, and test
    rows without a label are left out.
    """
    names, labels = class_labels(system, column)
    found = []
    for modality in MODALITIES:
        probe = _probe(system, modality, labels, settings, name=column)
        wanted = labels["test"]
        predicted = probe.logits(system.splits["test"].matrix(modality)).argmax(1)
        found.append(classified(system, column, modality, "linear probe", (predicted, wanted)))
        if modality == "text" or system.embedder.parts.config.is_aligned:
            predicted = zero_shot(system, names, modality, template)
            found.append(classified(system, column, modality, "zero-shot", (predicted, wanted)))
    return found


def class_labels(system: System, column: str) -> tuple[list[str], dict[str, Tensor]]:
    """Return class names of the train split, and each split's class numbers."""
    series = {name: split.frame[column] for name, split in system.splits.items()}
    names = sorted({str(value) for value in series["train"].drop_nulls()})
    if len(names) < 2:
        raise ValueError(f"column {column!r} has {len(names)} classes, expected two or more")
    numbers = {name: number for number, name in enumerate(names)}
    labels = {
        split: torch.tensor(
            [NO_LABEL if v is None else numbers.get(str(v), UNKNOWN_CLASS) for v in values]
        )
        for split, values in series.items()
    }
    if not (labels["test"] >= 0).any():
        raise ValueError(
            f"no row of test has one of the {len(names)} classes that column {column!r} has in "
            "train, expected some; choose another column"
        )
    return names, labels


def _probe(
    system: System,
    modality: str,
    labels: Mapping[str, Tensor],
    settings: ProbeSettings,
    *,
    name: str,
) -> LinearProbe:
    """Return one fitted on rows of train, its strength chosen on rows of valid."""
    places = {split: sampled_rows(labels[split], settings) for split in ("train", "valid")}
    check_classes(labels["train"][places["train"]], name)
    train, valid = (
        (system.splits[split].matrix(modality)[rows], labels[split][rows])
        for split, rows in places.items()
    )
    return choose_probe(train, valid, steps=settings.steps)


def sampled_rows(labels: Tensor, settings: ProbeSettings) -> Tensor:
    """Return at most `max_rows` random rows that have a label."""
    places = (labels >= 0).nonzero().flatten()
    if len(places) > settings.max_rows:
        chance = generator_of(settings.seed, "probe")
        places = places[torch.randperm(len(places), generator=chance)[: settings.max_rows]]
    return places


def check_classes(labels: Tensor, name: str) -> None:
    """Refuse training rows of which nothing can be learned."""
    if len(labels.unique()) < 2:
        raise ValueError(
            f"the {len(labels)} train rows drawn for {name!r} are all of one class, expected two "
            "or more; raise --probe-rows, or choose a label that is less rare"
        )


def zero_shot(system: System, names: Sequence[str], modality: str, template: str) -> Tensor:
    """Return [N] the class whose name, as a text, is nearest."""
    source = system.embedder.parts.config.text.sources[0]
    products = [
        DecodedProduct(name, {source: template.format(name.replace("_", " "))}) for name in names
    ]
    if system.embedder.parts.config.is_aligned:
        classes = system.embedder.embed(products).text
    else:
        classes = normalize(system.embedder.features(products).text, dim=-1)
    return (system.splits["test"].space(modality) @ classes.mT).argmax(1)


def classified(
    system: System,
    column: str,
    modality: str,
    way: str,
    answers: tuple[Tensor, Tensor],
    *,
    note: str = "",
) -> Figure:
    """Return the figure of (predicted, wanted) test classes; `note` goes before the counts."""
    has_label = answers[1] != NO_LABEL
    predicted, wanted = answers[0][has_label], answers[1][has_label]
    known = wanted >= 0
    values = {
        "accuracy": accuracy(predicted, wanted),
        "macro_f1": macro_f1(predicted[known], wanted[known]),
    }
    detail = f"{note}{len(wanted)} rows{_left_out(has_label)}"
    return Figure(f"category {column}", system.name, modality, way, values, detail)


def _left_out(has_label: Tensor) -> str:
    count = int((~has_label).sum())
    return f", {count} without a label left out" if count else ""


def recognise(
    system: System, name: str, expression: pl.Expr, settings: ProbeSettings
) -> list[Figure]:
    """Return AUC of any binary label (adult products), and F1 at the threshold best on valid."""
    labels = binary_labels(system, name, expression)
    found = []
    for modality in MODALITIES:
        probe = _probe(system, modality, labels, settings, name=name)
        answers = {}
        for split in ("valid", "test"):
            logits = probe.logits(system.splits[split].matrix(modality))
            answers[split] = (logits, labels[split])
        found.append(recognised(system, name, modality, "linear probe", answers))
    return found


def binary_labels(system: System, name: str, expression: pl.Expr) -> dict[str, Tensor]:
    """Return labels by split: 1 where the expression holds, 0 where not, NO_LABEL where null."""
    labels = {}
    for split, vectors in system.splits.items():
        inside = vectors.frame.select(expression.alias("inside")).to_series()
        if inside.dtype != pl.Boolean:
            raise ValueError(f"label {name!r} gives {inside.dtype}, expected booleans")
        if inside.drop_nulls().n_unique() < 2:
            raise ValueError(f"label {name!r} is equal for all rows of {split}; choose another")
        labels[split] = torch.tensor(inside.cast(pl.Int64).fill_null(NO_LABEL).to_list())
    return labels


def recognised(
    system: System,
    name: str,
    modality: str,
    way: str,
    answers: Mapping[str, tuple[Tensor, Tensor]],
    *,
    note: str = "",
) -> Figure:
    """Return the figure of (logits of both classes, label) of valid and test; others are out."""
    scores, positive = {}, {}
    for split, (logits, labels) in answers.items():
        has_label = labels != NO_LABEL
        scores[split] = (logits[:, 1] - logits[:, 0])[has_label]
        positive[split] = labels[has_label].bool()
    threshold = best_threshold(scores["valid"], positive["valid"])
    values = {
        "auc": auc(scores["test"], positive["test"]),
        "f1": f1_at(scores["test"], positive["test"], threshold),
    }
    left_out = _left_out(answers["test"][1] != NO_LABEL)
    counts = f"{int(positive['test'].sum())} of {len(positive['test'])} rows{left_out}"
    return Figure(f"binary {name}", system.name, modality, way, values, note + counts)


def cluster(system: System, column: str, *, seeds: Sequence[int]) -> list[Figure]:
    """Return clustering of the test split by k-means with as many clusters as there are classes."""
    series = system.splits["test"].frame[column]
    known = series.is_not_null().to_torch().bool() if series.null_count() else None
    codes = series.drop_nulls().cast(pl.String).rank("dense").cast(pl.Int64) - 1
    wanted = torch.tensor(codes.to_list())
    found = []
    for modality in MODALITIES:
        vectors = system.splits["test"].space(modality)
        vectors = vectors if known is None else vectors[known]
        rows = []
        for seed in seeds:
            numbers = k_means(vectors, int(wanted.max()) + 1, seed=seed)
            rows.append(
                {
                    "nmi": normalized_information(numbers, wanted),
                    "ari": adjusted_rand(numbers, wanted),
                    "purity": purity(numbers, wanted),
                }
            )
        values = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        way, detail = "k-means", f"{len(wanted)} rows, {len(seeds)} seeds"
        found.append(Figure(f"clusters {column}", system.name, modality, way, values, detail))
    return found
