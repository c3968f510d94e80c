"""Validation of a dual encoder: loss and retrieval on pairs that were not trained on.

Axes: N pairs, E embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ulsdram_core.eclip.contrast import contrast
from ulsdram_core.eclip.dual_encoder import DualEncoder, PairVectors
from ulsdram_core.eclip.pairs import Pair, collate_pairs
from ulsdram_core.eclip.retrieval import recall_at
from ulsdram_core.eclip.targets import TargetConfig
from ulsdram_core.precision import Precision, autocast

# Pairs that the validation loss sets against each other, whatever batches are trained in.
LOSS_PAIRS = 256
KS = (1, 5, 10)


@torch.inference_mode()
def embed_pairs(
    model: DualEncoder,
    pairs: Sequence[Pair],
    *,
    stream_pairs: int,
    picture_size: int,
    precision: Precision = "fp32",
) -> PairVectors:
    """Return embeddings of pairs in order, on the CPU."""
    device = model.log_scale.device
    found = []
    for start in range(0, len(pairs), stream_pairs):
        batch = collate_pairs(pairs[start : start + stream_pairs], picture_size=picture_size)
        with autocast(device, precision):
            found.append(model(batch.batch.to(device)))
    texts = torch.cat([v.text_BE for v in found]).cpu()
    return PairVectors(texts, torch.cat([v.picture_BE for v in found]).cpu())


def pair_figures(
    vectors: PairVectors, catalog_N: Tensor, scale: float, targets: TargetConfig
) -> dict[str, float]:
    """Return the figures of embedded pairs."""
    texts, pictures = vectors.text_BE, vectors.picture_BE
    total = 0.0
    for start in range(0, len(texts), LOSS_PAIRS):
        rows = slice(start, start + LOSS_PAIRS)
        labels = targets.rows(catalog_N[rows], 0, len(texts[rows]))
        total += float(contrast(texts[rows], pictures[rows], torch.tensor(scale), labels, 0))
    figures = {"loss": total / max(1, len(texts)), "scale": scale}
    for name, query, gallery in (
        ("picture_to_text", pictures, texts),
        ("text_to_picture", texts, pictures),
    ):
        for k, share in recall_at(query, gallery, catalog_N, catalog_N, ks=KS).items():
            figures[f"{name}_r{k}"] = share
    return figures
