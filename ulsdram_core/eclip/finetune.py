"""Fine-tuning: one encoder or both and a linear layer, trained on labels.

Axes: B products, C classes.
"""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.batch import Batch
from ulsdram_core.eclip.dual_encoder import DualEncoder
from ulsdram_core.eclip.pairs import Pair, collate_pairs
from ulsdram_core.fit.optim import OptimConfig
from ulsdram_core.frozen import Frozen
from ulsdram_core.seeding import generator_of, seed_of

Modality = Literal["text", "picture", "both"]


class FineTuneConfig(Frozen):
    """How encoders are fine-tuned on one task."""

    epochs: int = Field(1, ge=1, description="passes over the labelled products")
    batch_size: int = Field(64, ge=1, description="products per step")
    seed: int = Field(0, ge=0, description="seed of order, dropout and the linear layer")
    optim: OptimConfig = Field(
        default_factory=lambda: OptimConfig(text_rate=5e-5, image_rate=1e-4, task_rate=1e-3),
        description="optimiser",
    )


class Classifier(nn.Module):
    """Features of a modality, or both side by side, then a linear layer.

    Its parts are named as OptimConfig's; an encoder that is not read is no part.
    """

    def __init__(self, encoder: DualEncoder, num_classes: int, modality: Modality) -> None:
        super().__init__()
        encoder = copy.deepcopy(encoder)
        self._features = []
        width = 0
        if modality != "picture":
            self.text_encoder = encoder.text_encoder
            self._features.append(encoder.text_features)
            width += encoder.text_encoder.hidden
        if modality != "text":
            self.image_encoder = encoder.image_encoder
            self._features.append(encoder.picture_features)
            width += encoder.image_encoder.region_dim
        self.layer = nn.Linear(width, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Return [B, C] logits."""
        parts = [F.normalize(feature(batch), dim=-1) for feature in self._features]
        # Unit features are small; without a factor the layer would have to grow first.
        return self.layer(10 * torch.cat(parts, dim=1))


def fine_tune(
    encoder: DualEncoder,
    pairs: Sequence[Pair],
    labels: Sequence[int],
    config: FineTuneConfig,
    *,
    picture_size: int,
    modality: Modality = "both",
) -> Classifier:
    """Train a copy of the encoders and a linear layer; the given ones stay as they are."""
    torch.manual_seed(seed_of(config.seed, "layer"))
    model = Classifier(encoder, max(labels) + 1, modality).to(encoder.log_scale.device)
    per_epoch = -(-len(pairs) // config.batch_size)
    optimizer, schedule = config.optim.build(model, config.epochs * per_epoch)
    model.train()
    for epoch in range(config.epochs):
        order = torch.randperm(len(pairs), generator=generator_of(config.seed, epoch)).tolist()
        for start in range(0, len(order), config.batch_size):
            places = order[start : start + config.batch_size]
            logits = model(_batch(pairs, places, picture_size, model))
            wanted = torch.tensor([labels[i] for i in places], device=logits.device)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits, wanted).backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def classify_pairs(
    model: Classifier, pairs: Sequence[Pair], *, picture_size: int, batch_size: int = 64
) -> Tensor:
    """Return [N, C] logits of pairs, in order."""
    found = []
    for start in range(0, len(pairs), batch_size):
        places = list(range(start, min(start + batch_size, len(pairs))))
        found.append(model(_batch(pairs, places, picture_size, model)).cpu())
    return torch.cat(found)


def _batch(pairs: Sequence[Pair], places: list[int], size: int, model: Classifier) -> Batch:
    batch = collate_pairs([pairs[i] for i in places], picture_size=size).batch
    return batch.to(model.layer.weight.device)
