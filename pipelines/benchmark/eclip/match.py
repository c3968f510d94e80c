"""Product matching on vectors: rows that list one product under different texts."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from pipelines.benchmark.eclip.tasks import Figure, System
from pipelines.benchmark.eclip.vectors import PICTURE_HASH, SplitVectors
from ulsdram_core.eclip.probe import fit_probe
from ulsdram_core.eclip.retrieval import best_matches, hits_at
from ulsdram_core.eclip.scores import auc, bootstrap_interval, mean_interval
from ulsdram_core.seeding import generator_of

_log = logging.getLogger(__name__)
KS = (1, 5, 10)
NEAREST = 8  # rows among which a query's strangers are looked for


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

    def seen(self) -> str:
        """Return how many of those that ask pre-training may have seen."""
        count = int((self.queries < self.num_train).sum())
        return f"{count} of {len(self.queries)} queries are training products"


def match_data(frame: pl.DataFrame, column: str, *, num_train: int = 0) -> MatchData:
    """Return which rows match: those of equal `column`; equal texts are no query's partners."""
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
    """Return matching: retrieval by text and by picture, and a probe over pairs of texts."""
    if len(data.queries) < 2 * folds:
        return []
    texts = vectors.space("text")
    found = [_retrieved(system, data, texts, texts, "text to text")]
    if vectors.embeddings is not None:
        pictures = vectors.space("picture")
        found.append(_retrieved(system, data, pictures, texts, "picture to text"))
    return [*found, *_matched_pairs(system, data, texts, folds=folds)]


def _retrieved(system: System, data: MatchData, query: Tensor, gallery: Tensor, way: str) -> Figure:
    """Return R@k with intervals by group; texts equal to the query's own are left out."""
    queries = data.queries
    matches = _nearest_others(data, query, gallery, max(KS))
    hits = hits_at(matches, data.groups[queries], data.groups, KS)
    values: dict[str, float] = {}
    for k, hit in hits.items():
        values[f"r{k}"] = float(hit.float().mean())
        values[f"r{k}_low"], values[f"r{k}_high"] = bootstrap_interval(hit, data.groups[queries])
    detail = f"{len(queries)} queries, {len(data.groups)} rows; {data.seen()}"
    return Figure("matching", system.name, way, "nearest", values, detail)


def _nearest_others(data: MatchData, query: Tensor, gallery: Tensor, k: int) -> Tensor:
    """Return [Q, k] nearest rows of each query, those with another text first."""
    queries = data.queries
    same_title = torch.bincount(data.titles)[data.titles[queries]].max()
    wide = best_matches(query[queries], gallery, k + int(same_title), own_Q=queries)
    is_other = data.titles[wide] != data.titles[queries][:, None]
    # Keeps the order of the answers that count, and moves the others to the end.
    order = (~is_other).long().argsort(dim=1, stable=True)
    return wide.gather(1, order)[:, :k]


def _matched_pairs(
    system: System, data: MatchData, texts: Tensor, *, folds: int
) -> Iterator[Figure]:
    """Yield the figure of a probe that tells matches from the nearest others, by folds."""
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
    if len(scores) < 2:
        _log.warning(
            "%s: %d of %d folds hold both matches and others, so the probe over pairs is left out",
            system.name, len(scores), folds,
        )  # fmt: skip
        return
    found = torch.tensor(scores)
    low, high = mean_interval(found)
    values = {"auc": float(found.mean()), "auc_low": low, "auc_high": high}
    detail = f"{len(left)} pairs, {len(found)} folds; {data.seen()}"
    yield Figure("matching", system.name, "text to text", "linear probe", values, detail)


def pairs_to_judge(data: MatchData, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows left and right of each pair, and 1 where they match; their texts always differ.

    Equal texts would be told from matches at a glance, for no match has them.
    """
    queries = data.queries
    nearest = _nearest_others(data, texts, texts, NEAREST)
    pairs: list[tuple[int, int, int]] = []
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
        pairs += [(row, other, 1) for other in partners]
        pairs += [(row, other, 0) for other in strangers[: max(1, len(partners))]]
    left, right, labels = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3).T
    return left, right, labels
