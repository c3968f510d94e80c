"""The tasks on vectors: category, any binary label, matching, clustering.

A figure is one row: task, system, modality, way, and what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipelines.eclip.vectors import PICTURE_HASH, SplitVectors
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.probe import LinearProbe, choose_probe, fit_probe, k_means
from ulsdram_core.eclip.retrieval import best_matches, hits_at
from ulsdram_core.eclip.scores import (
    accuracy,
    adjusted_rand,
    auc,
    best_threshold,
    bootstrap_interval,
    f1_at,
    macro_f1,
    normalized_information,
    purity,
)
from ulsdram_core.extractor import DecodedProduct
from ulsdram_core.seeding import generator_of

MODALITIES = ("text", "picture", "both")
KS = (1, 5, 10)
NEAREST = 8  # rows among which a query's strangers are looked for


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
    """Category classification: a linear probe of each modality, and zero-shot by class names.

    Classes are those of the train split; other test rows count as errors.
    """
    names, labels = class_labels(system, column)
    found = []
    for modality in MODALITIES:
        probe = _probe(system, modality, labels, settings)
        wanted = labels["test"]
        predicted = probe.logits(system.splits["test"].matrix(modality)).argmax(1)
        found.append(_classified(system, column, modality, "linear probe", (predicted, wanted)))
        if modality == "text" or system.embedder.parts.config.is_aligned:
            predicted = zero_shot(system, names, modality, template)
            found.append(_classified(system, column, modality, "zero-shot", (predicted, wanted)))
    return found


def class_labels(system: System, column: str) -> tuple[list[str], dict[str, Tensor]]:
    """Class names of the train split, and each split's class numbers (-1: unknown or null)."""
    series = {name: split.frame[column] for name, split in system.splits.items()}
    names = sorted({str(value) for value in series["train"].drop_nulls()})
    if len(names) < 2:
        raise ValueError(f"column {column!r} has {len(names)} classes, expected two or more")
    numbers = {name: number for number, name in enumerate(names)}
    labels = {
        split: torch.tensor([numbers.get(str(v), -1) if v is not None else -1 for v in values])
        for split, values in series.items()
    }
    return names, labels


def _probe(
    system: System, modality: str, labels: Mapping[str, Tensor], settings: ProbeSettings
) -> LinearProbe:
    """Fitted on rows of the train split, its strength chosen on rows of the valid split."""
    train, valid = (
        _sampled(system.splits[split].matrix(modality), labels[split], settings)
        for split in ("train", "valid")
    )
    return choose_probe(train, valid, steps=settings.steps)


def _sampled(vectors: Tensor, labels: Tensor, settings: ProbeSettings) -> tuple[Tensor, Tensor]:
    """At most `max_rows` random rows that have a label."""
    places = (labels >= 0).nonzero().flatten()
    if len(places) > settings.max_rows:
        chance = generator_of(settings.seed, "probe")
        places = places[torch.randperm(len(places), generator=chance)[: settings.max_rows]]
    return vectors[places], labels[places]


def zero_shot(system: System, names: Sequence[str], modality: str, template: str) -> Tensor:
    """[N] the class whose name, as a text, is nearest."""
    source = system.embedder.parts.config.text.sources[0]
    products = [
        DecodedProduct(name, {source: template.format(name.replace("_", " "))}) for name in names
    ]
    if system.embedder.parts.config.is_aligned:
        classes = system.embedder.embed(products).text
    else:
        classes = normalize(system.embedder.features(products).text, dim=-1)
    return (system.splits["test"].space(modality) @ classes.mT).argmax(1)


def _classified(
    system: System, column: str, modality: str, way: str, answers: tuple[Tensor, Tensor]
) -> Figure:
    predicted, wanted = answers
    known = wanted >= 0
    values = {
        "accuracy": accuracy(predicted, wanted),
        "macro_f1": macro_f1(predicted[known], wanted[known]),
    }
    detail = f"{len(wanted)} rows"
    return Figure(f"category {column}", system.name, modality, way, values, detail)


def recognise(
    system: System, name: str, expression: pl.Expr, settings: ProbeSettings
) -> list[Figure]:
    """Any binary label (adult products): AUC, and F1 at the threshold that is best on valid."""
    labels = {}
    for split, vectors in system.splits.items():
        inside = vectors.frame.select(expression.alias("inside")).to_series()
        if inside.dtype != pl.Boolean:
            raise ValueError(f"label {name!r} gives {inside.dtype}, expected booleans")
        labels[split] = torch.tensor(inside.fill_null(value=False).to_list()).long()
        if not 0 < int(labels[split].sum()) < len(labels[split]):
            raise ValueError(f"label {name!r} is equal for all rows of {split}; choose another")
    found = []
    for modality in MODALITIES:
        probe = _probe(system, modality, labels, settings)
        scores = {}
        for split in ("valid", "test"):
            logits = probe.logits(system.splits[split].matrix(modality))
            scores[split] = logits[:, 1] - logits[:, 0]
        threshold = best_threshold(scores["valid"], labels["valid"].bool())
        positive = labels["test"].bool()
        values = {
            "auc": auc(scores["test"], positive),
            "f1": f1_at(scores["test"], positive, threshold),
        }
        detail = f"{int(positive.sum())} of {len(positive)} rows"
        found.append(
            Figure(f"binary {name}", system.name, modality, "linear probe", values, detail)
        )
    return found


def cluster(system: System, column: str, *, seeds: Sequence[int]) -> list[Figure]:
    """Clustering of the test split by k-means with as many clusters as there are classes."""
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


@dataclass(frozen=True)
class MatchData:
    """Rows of the matching task: all rows are the gallery, those with a partner ask."""

    groups: Tensor
    """[N] number of the product that a row lists."""
    titles: Tensor
    """[N] number of a row's text."""
    queries: Tensor
    """[Q] rows that ask."""
    num_train: int = 0
    """The first rows are the train split's."""

    def described(self) -> str:
        """How many ask whom, and how many of them pre-training may have seen."""
        seen = int((self.queries < self.num_train).sum())
        return (
            f"{len(self.queries)} queries, {len(self.groups)} rows; {seen} of "
            f"{len(self.queries)} queries are training products"
        )


def match_data(frame: pl.DataFrame, column: str, *, num_train: int = 0) -> MatchData:
    """Rows with equal `column` match; equal texts are no question and so no queries' partners."""
    if column not in frame.columns:
        raise ValueError(f"--match {column!r} is no column, expected one of {frame.columns}")
    number = pl.col(column).cast(pl.String).rank("dense").cast(pl.Int64)
    # A null matches nothing: its number is beyond those of all values.
    alone = (pl.len() + 1 + pl.int_range(pl.len())).cast(pl.Int64)
    table = frame.select(
        group=pl.coalesce(number, alone),
        title=pl.col("texts").fill_null("").rank("dense").cast(pl.Int64),
    ).with_columns(titles=pl.col("title").n_unique().over("group"))
    if column == PICTURE_HASH:
        table = table.with_columns(
            titles=pl.when(frame[PICTURE_HASH].is_null()).then(1).otherwise(pl.col("titles"))
        )
    queries = (table["titles"] > 1).arg_true().to_list()
    return MatchData(
        torch.tensor(table["group"].to_list()),
        torch.tensor(table["title"].to_list()),
        torch.tensor(queries, dtype=torch.long),
        num_train,
    )


def match(system: System, data: MatchData, vectors: SplitVectors, *, folds: int) -> list[Figure]:
    """Product matching: retrieval by text and by picture, and a probe over pairs of texts."""
    if len(data.queries) < 2 * folds:
        return []
    texts = vectors.space("text")
    found = [_retrieved(system, data, texts, texts, "text to text")]
    if vectors.embeddings is not None:
        pictures = vectors.space("picture")
        found.append(_retrieved(system, data, pictures, texts, "picture to text"))
    found.append(_matched_pairs(system, data, texts, folds=folds))
    return found


def _retrieved(system: System, data: MatchData, query: Tensor, gallery: Tensor, way: str) -> Figure:
    """R@k with intervals by group; texts equal to the query's own are left out of the answers."""
    queries = data.queries
    matches = _nearest_others(data, query, gallery, max(KS))
    hits = hits_at(matches, data.groups[queries], data.groups, KS)
    values: dict[str, float] = {}
    for k, hit in hits.items():
        values[f"r{k}"] = float(hit.float().mean())
        values[f"r{k}_low"], values[f"r{k}_high"] = bootstrap_interval(hit, data.groups[queries])
    return Figure("matching", system.name, way, "nearest", values, data.described())


def _nearest_others(data: MatchData, query: Tensor, gallery: Tensor, k: int) -> Tensor:
    """[Q, k] nearest rows of each query, those with another text first."""
    queries = data.queries
    same_title = torch.bincount(data.titles)[data.titles[queries]].max()
    wide = best_matches(query[queries], gallery, k + int(same_title), own_Q=queries)
    is_other = data.titles[wide] != data.titles[queries][:, None]
    # Keeps the order of the answers that count, and moves the others to the end.
    order = (~is_other).long().argsort(dim=1, stable=True)
    return wide.gather(1, order)[:, :k]


def _matched_pairs(system: System, data: MatchData, texts: Tensor, *, folds: int) -> Figure:
    """A probe that tells pairs that match from the nearest that do not; groups never straddle."""
    left, right, is_match = pairs_to_judge(data, texts)
    u, v = texts[left], texts[right]
    features = torch.cat([u * v, (u - v).abs()], 1)
    groups = data.groups[left]
    order = torch.randperm(int(groups.max()) + 1, generator=generator_of(0, "folds"))
    fold_of = order[groups] % folds
    scores = []
    for fold in range(folds):
        inside = fold_of == fold
        positive = is_match[inside].bool()
        if positive.all() or not positive.any():
            continue
        probe = fit_probe(features[~inside], is_match[~inside], strength=1e-2)
        logits = probe.logits(features[inside])
        scores.append(auc(logits[:, 1] - logits[:, 0], positive))
    found = torch.tensor(scores)
    half = 1.96 * float(found.std()) / len(found) ** 0.5
    mean = float(found.mean())
    values = {"auc": mean, "auc_low": mean - half, "auc_high": mean + half}
    detail = f"{len(left)} pairs, {len(found)} folds"
    return Figure("matching", system.name, "text to text", "linear probe", values, detail)


def pairs_to_judge(data: MatchData, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows left and right of each pair, and 1 where they match; texts of a pair always differ.

    Equal texts would be told from matches at a glance, for no match has them.
    """
    queries = data.queries
    nearest = _nearest_others(data, texts, texts, NEAREST)
    left: list[int] = []
    right: list[int] = []
    labels: list[int] = []
    members: dict[int, list[int]] = {}
    for row in queries.tolist():
        members.setdefault(int(data.groups[row]), []).append(row)
    for place, row in enumerate(queries.tolist()):
        group = int(data.groups[row])
        partners = [m for m in members[group] if data.titles[m] != data.titles[row]]
        strangers = [
            m
            for m in nearest[place].tolist()
            if data.groups[m] != group and data.titles[m] != data.titles[row]
        ]
        chosen = [(p, 1) for p in partners] + [(s, 0) for s in strangers[: max(1, len(partners))]]
        for other, label in chosen:
            left.append(row)
            right.append(other)
            labels.append(label)
    return torch.tensor(left), torch.tensor(right), torch.tensor(labels)
