"""Figures of the five tasks: classification, ranking, clustering; most are scikit-learn's.

Axes: N rows.
"""

import math
from types import ModuleType

import torch
from torch import Tensor


def sklearn_metrics() -> ModuleType:
    """Return scikit-learn's metrics; a ValueError says what to install where they are missing."""
    try:
        import sklearn.metrics
    except ImportError as error:
        raise ValueError(
            "found no scikit-learn, which scores the tasks; pip install 'ulsdram[bench]'"
        ) from error
    metrics: ModuleType = sklearn.metrics
    return metrics


def accuracy(predicted_N: Tensor, wanted_N: Tensor) -> float:
    """Return the share of right answers."""
    return float((predicted_N == wanted_N).float().mean())


def macro_f1(predicted_N: Tensor, wanted_N: Tensor) -> float:
    """Return the mean F1 over the classes that occur, wanted or predicted; NaN without rows."""
    if not len(wanted_N):
        return math.nan
    f1_score = sklearn_metrics().f1_score
    return float(f1_score(wanted_N.numpy(), predicted_N.numpy(), average="macro"))


def auc(score_N: Tensor, is_positive_N: Tensor) -> float:
    """Return the area under the ROC curve; NaN without positives or without negatives."""
    if is_positive_N.all() or not is_positive_N.any():
        return math.nan
    return float(sklearn_metrics().roc_auc_score(is_positive_N.numpy(), score_N.numpy()))


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
    contingency_matrix = sklearn_metrics().cluster.contingency_matrix
    counts = contingency_matrix(wanted_N.numpy(), cluster_N.numpy())
    return float(counts.max(0).sum() / len(cluster_N))


def normalized_information(cluster_N: Tensor, wanted_N: Tensor) -> float:
    """Return NMI: mutual information over the mean of both entropies."""
    score = sklearn_metrics().normalized_mutual_info_score
    return float(score(wanted_N.numpy(), cluster_N.numpy()))


def adjusted_rand(cluster_N: Tensor, wanted_N: Tensor) -> float:
    """Return ARI: agreement over pairs of rows, corrected for chance."""
    return float(sklearn_metrics().adjusted_rand_score(wanted_N.numpy(), cluster_N.numpy()))


def mean_interval(value_N: Tensor, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of two or more values by Student's t, as few folds need."""
    from scipy.stats import t  # comes with scikit-learn

    mean, error = float(value_N.mean()), float(value_N.std()) / len(value_N) ** 0.5
    half = float(t.ppf((1 + level) / 2, len(value_N) - 1)) * error
    return mean - half, mean + half


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
