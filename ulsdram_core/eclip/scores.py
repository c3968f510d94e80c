"""Figures of the five tasks, written out: classification, ranking, clustering.

Axes: N rows, C classes, G groups.
"""

import math

import torch
from torch import Tensor


def accuracy(predicted_N: Tensor, wanted_N: Tensor) -> float:
    """Return the share of right answers."""
    return float((predicted_N == wanted_N).float().mean())


def macro_f1(predicted_N: Tensor, wanted_N: Tensor) -> float:
    """Return the mean F1 over the classes that occur, wanted or predicted."""
    counts = _table(predicted_N, wanted_N)
    right = counts.diagonal()
    occurring = counts.sum(0) + counts.sum(1)
    seen = occurring > 0
    return float((2 * right[seen] / occurring[seen]).mean())


def auc(score_N: Tensor, is_positive_N: Tensor) -> float:
    """Return the area under the ROC curve: a positive outranks a negative, ties count half."""
    positives = score_N[is_positive_N].double()
    negatives = score_N[~is_positive_N].double().sort().values
    if not len(positives) or not len(negatives):
        return math.nan
    below = torch.searchsorted(negatives, positives)
    up_to = torch.searchsorted(negatives, positives, right=True)
    return float((below + up_to).double().mean() / (2 * len(negatives)))


def best_threshold(score_N: Tensor, is_positive_N: Tensor) -> float:
    """Return the score from which on answers are positive for the highest F1."""
    order = score_N.argsort(descending=True)
    scores, right = score_N[order], is_positive_N[order].double().cumsum(0)
    chosen = torch.arange(1, len(order) + 1, dtype=torch.double)
    f1 = 2 * right / (chosen + is_positive_N.sum())
    is_last = torch.ones(len(order), dtype=torch.bool)
    is_last[:-1] = scores[:-1] != scores[1:]  # equal scores are taken together
    return float(scores[torch.where(is_last, f1, -1.0).argmax()])


def f1_at(score_N: Tensor, is_positive_N: Tensor, threshold: float) -> float:
    """Return F1 when scores of at least `threshold` count as positive."""
    is_chosen = score_N >= threshold
    right = float((is_chosen & is_positive_N).sum())
    total = float(is_chosen.sum() + is_positive_N.sum())
    return 2 * right / total if total else 0.0


def purity(cluster_N: Tensor, wanted_N: Tensor) -> float:
    """Return the share of rows in the majority class of their cluster."""
    return float(_table(cluster_N, wanted_N).max(1).values.sum() / len(cluster_N))


def normalized_information(cluster_N: Tensor, wanted_N: Tensor) -> float:
    """Return NMI: mutual information over the mean of both entropies."""
    joint = _table(cluster_N, wanted_N) / len(cluster_N)
    rows, columns = joint.sum(1), joint.sum(0)
    outer = rows[:, None] * columns[None, :]
    some = joint > 0
    mutual = float((joint[some] * (joint[some] / outer[some]).log()).sum())
    entropies = [-float((p[p > 0] * p[p > 0].log()).sum()) for p in (rows, columns)]
    mean = sum(entropies) / 2
    return mutual / mean if mean else 1.0


def adjusted_rand(cluster_N: Tensor, wanted_N: Tensor) -> float:
    """Return ARI: agreement over pairs of rows, corrected for chance."""
    table = _table(cluster_N, wanted_N)
    pairs = _choose_two(table).sum()
    rows, columns = _choose_two(table.sum(1)).sum(), _choose_two(table.sum(0)).sum()
    expected = rows * columns / max(1.0, len(cluster_N) * (len(cluster_N) - 1) / 2)
    most = (rows + columns) / 2
    return float((pairs - expected) / (most - expected)) if most != expected else 1.0


def _choose_two(counts: Tensor) -> Tensor:
    return counts * (counts - 1) / 2


def _table(one_N: Tensor, other_N: Tensor) -> Tensor:
    """Return [C, C] how often class a of one meets class b of the other."""
    size = int(max(one_N.max(), other_N.max())) + 1
    flat = torch.bincount(one_N * size + other_N, minlength=size * size)
    return flat.view(size, size).double()


def mean_interval(value_N: Tensor, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of two or more values by Student's t, as few folds need."""
    half = _student_factor(len(value_N) - 1, level) * float(value_N.std()) / len(value_N) ** 0.5
    mean = float(value_N.mean())
    return mean - half, mean + half


def _student_factor(freedom: int, level: float) -> float:
    """Return the t that |T| stays below with probability `level`; 2.776 for 4 degrees and 0.95.

    With t = sqrt(freedom) * tan(angle) the density becomes a power of the cosine.
    """
    angle = torch.linspace(0, math.pi / 2, 1_000_001, dtype=torch.double)
    share = torch.cumulative_trapezoid(angle.cos() ** (freedom - 1), angle)
    place = int(torch.searchsorted(share, level * share[-1])) + 1
    return freedom**0.5 * float(angle[place].tan())


def bootstrap_interval(
    value_N: Tensor, group_N: Tensor, *, draws: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean when whole groups are drawn again, their rows together."""
    groups = group_N.unique(return_inverse=True)[1]
    sums = torch.zeros(int(groups.max()) + 1).index_add(0, groups, value_N.float())
    sizes = torch.bincount(groups).float()
    chance = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(sums), (draws, len(sums)), generator=chance)
    means = sums[chosen].sum(1) / sizes[chosen].sum(1)
    edge = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([edge, 1 - edge]))
    return float(low), float(high)
