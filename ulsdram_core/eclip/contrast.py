"""The contrastive loss of some rows of a batch against the whole batch.

Axes: R rows, N pairs of the whole batch, E embedding.
"""

import torch
from torch import Tensor

from ulsdram_core.eclip.targets import TargetConfig, TargetRows

# Rows whose similarities to the whole batch are held at once.
BLOCK_ROWS = 1024


def soft_cross_entropy(logits_RN: Tensor, targets: TargetRows) -> Tensor:
    """Sum over the rows the cross-entropy with label rows instead of label numbers."""
    agreement = (targets.weight_RN * logits_RN).sum()
    if targets.ignored_RN is not None:
        logits_RN = logits_RN.masked_fill(targets.ignored_RN, float("-inf"))
    return torch.logsumexp(logits_RN, dim=1).sum() - agreement


def contrast(
    text_NE: Tensor,
    picture_NE: Tensor,
    scale: Tensor,
    targets: TargetRows,
    start: int,
) -> Tensor:
    """Sum the mean of both directions over the rows from `start` on; divide by N outside."""
    rows = slice(start, start + len(targets.weight_RN))
    to_texts = scale * picture_NE[rows] @ text_NE.mT
    to_pictures = scale * text_NE[rows] @ picture_NE.mT
    return (soft_cross_entropy(to_texts, targets) + soft_cross_entropy(to_pictures, targets)) / 2


def backward_contrast(
    text_NE: Tensor,
    picture_NE: Tensor,
    catalog_N: Tensor,
    scale: Tensor,
    *,
    targets: TargetConfig,
    rows: tuple[int, int],
) -> float:
    """Back-propagate the loss of the half-open `rows`, over N; return its value.

    Block by block, so that similarities take BLOCK_ROWS x N numbers, not N x N.
    """
    total = 0.0
    for start in range(rows[0], rows[1], BLOCK_ROWS):
        labels = targets.rows(catalog_N, start, min(start + BLOCK_ROWS, rows[1]))
        loss = contrast(text_NE, picture_NE, scale, labels, start) / len(catalog_N)
        # The scale's own graph is tiny and serves every block.
        loss.backward(retain_graph=True)
        total += float(loss.detach())
    return total
