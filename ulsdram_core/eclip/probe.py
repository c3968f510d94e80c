"""A linear probe: what a linear layer can read off fixed vectors; and k-means over them.

Axes: N rows, D features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = (1e-4, 1e-2)


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression over standardised features."""

    mean_D: Tensor
    deviation_D: Tensor
    weight_CD: Tensor
    bias_C: Tensor

    def logits(self, vectors_ND: Tensor) -> Tensor:
        """Return [N, C] scores."""
        return F.linear((vectors_ND - self.mean_D) / self.deviation_D, self.weight_CD, self.bias_C)


def fit_probe(
    vectors_ND: Tensor, label_N: Tensor, *, strength: float = 1e-3, steps: int = 40
) -> LinearProbe:
    """Minimise the cross-entropy plus strength * |W|^2 / 2 with L-BFGS; the result is unique."""
    mean_D = vectors_ND.mean(0)
    deviation_D = vectors_ND.std(0, unbiased=False).clamp(min=1e-6)
    standard_ND = (vectors_ND - mean_D) / deviation_D
    num_classes = int(label_N.max()) + 1
    weight = torch.zeros(num_classes, vectors_ND.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(F.linear(standard_ND, weight, bias), label_N)
        found = found + strength / 2 * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return LinearProbe(mean_D, deviation_D, weight.detach(), bias.detach())


def choose_probe(
    train: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
    *,
    strengths: Sequence[float] = STRENGTHS,
    steps: int = 40,
) -> LinearProbe:
    """Fit with every strength; the one with the lowest validation loss wins.

    Validation rows of classes that the training rows lack do not vote.
    """
    known = valid[1] <= int(train[1].max())
    best: tuple[float, LinearProbe] | None = None
    for strength in strengths:
        probe = fit_probe(*train, strength=strength, steps=steps)
        loss = float(F.cross_entropy(probe.logits(valid[0][known]), valid[1][known]))
        if best is None or loss < best[0]:
            best = (loss, probe)
    assert best is not None, "there is at least one strength"
    return best[1]


def k_means(vectors_ND: Tensor, num_clusters: int, *, seed: int, steps: int = 50) -> Tensor:
    """Return [N] cluster numbers; spherical k-means on unit vectors, started by k-means++."""
    unit_ND = F.normalize(vectors_ND, dim=-1)
    chance = torch.Generator().manual_seed(seed)
    places = [int(torch.randint(len(unit_ND), (1,), generator=chance))]
    nearest_N = torch.full((len(unit_ND),), 2.0)
    while len(places) < min(num_clusters, len(unit_ND)):
        nearest_N = torch.minimum(nearest_N, (1 - unit_ND @ unit_ND[places[-1]]).clamp(min=0))
        # Where all rows are covered already any row will do.
        weights = nearest_N if float(nearest_N.sum()) > 0 else torch.ones_like(nearest_N)
        places.append(int(torch.multinomial(weights, 1, generator=chance)))
    centers_CD = unit_ND[places].clone()
    cluster_N = torch.full((len(unit_ND),), -1)
    for _ in range(steps):
        found = (unit_ND @ centers_CD.mT).argmax(1)
        if torch.equal(found, cluster_N):
            break
        cluster_N = found
        sums = torch.zeros_like(centers_CD).index_add(0, cluster_N, unit_ND)
        # A cluster that lost all its rows keeps its center.
        is_empty = (torch.bincount(cluster_N, minlength=len(centers_CD)) == 0)[:, None]
        centers_CD = torch.where(is_empty, centers_CD, F.normalize(sums, dim=-1))
    return cluster_N
