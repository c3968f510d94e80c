"""Retrieval measured exactly: R@k of queries against a gallery, in blocks.

Axes: Q queries, G gallery entries, E embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 1024


def best_matches(
    query_QE: Tensor, gallery_GE: Tensor, k: int, *, own_Q: Tensor | None = None
) -> Tensor:
    """Return [Q, min(k, G)] gallery places by falling inner product.

    `own_Q` names a gallery place per query that is no answer (the query itself); -1 for none.
    """
    k = min(k, len(gallery_GE))
    found = []
    for start in range(0, len(query_QE), BLOCK):
        scores = query_QE[start : start + BLOCK] @ gallery_GE.mT
        if own_Q is not None:
            own = own_Q[start : start + BLOCK]
            rows = (own >= 0).nonzero().flatten()
            scores[rows, own[rows]] = float("-inf")
        found.append(scores.topk(k, dim=1).indices)
    return torch.cat(found) if found else torch.zeros(0, k, dtype=torch.long)


def hits_at(
    matches_QK: Tensor, query_group_Q: Tensor, gallery_group_G: Tensor, ks: Sequence[int]
) -> dict[int, Tensor]:
    """Return [Q] bool for every k: whether one of the k best matches is of the query's group."""
    is_hit_QK = gallery_group_G[matches_QK] == query_group_Q[:, None]
    return {k: is_hit_QK[:, :k].any(1) for k in ks}


def recall_at(
    query_QE: Tensor,
    gallery_GE: Tensor,
    query_group_Q: Tensor,
    gallery_group_G: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10),
    own_Q: Tensor | None = None,
) -> dict[int, float]:
    """Return the share of queries with a match of their group among the k best."""
    matches = best_matches(query_QE, gallery_GE, max(ks), own_Q=own_Q)
    hits = hits_at(matches, query_group_Q, gallery_group_G, ks)
    return {k: float(hit.float().mean()) if len(hit) else 0.0 for k, hit in hits.items()}
