"""MAE-model: ranks the known values of a given attribute from text and pictures; no spans.

text = max-pooled convolutions over piece embeddings; [text ; attribute ; picture] -> two layers
-> a vector whose cosine distance d to the right value's vector v+ is to be 1 smaller than to
another value's v-: loss = max(0, 1 + d(z, v+) - d(z, v-)).

Axes: N (product, attribute) queries, L pieces, E piece embedding, F filters, D value embedding,
P picture features.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.frozen import Frozen
from ulsdram_core.seeding import generator_of


class RankerConfig(Frozen):
    """Sizes and training of the value ranker; the defaults are the published ones."""

    dim: int = Field(1024, ge=1, description="attribute and value embeddings, and both layers")
    piece_dim: int = Field(128, ge=1, description="piece embeddings")
    windows: tuple[int, ...] = Field((5, 7), min_length=1, description="widths of convolutions")
    filters: int = Field(1024, ge=1, description="filters per width")
    max_pictures: int = Field(4, ge=1, description="pictures of a product that are looked at")
    margin: float = Field(1.0, gt=0, description="how much nearer the right value is to be")
    rate: float = Field(3e-3, gt=0, description="learning rate of Adam")
    epochs: int = Field(10, ge=1, description="passes over the training values")
    batch_size: int = Field(64, ge=1, description="queries per step")
    seed: int = Field(0, ge=0, description="seed of initialisation, order and wrong values")


@dataclass(frozen=True)
class Query:
    """One product asked for one attribute."""

    piece_ids: np.ndarray
    picture: np.ndarray
    """[P] features, the highest over the product's pictures; zeros without."""
    attribute: int
    value: int = -1
    """The right value's number, in training."""


class ValueTable:
    """The values that training has seen with each attribute, numbered."""

    def __init__(self, num_attributes: int) -> None:
        self.values: list[str] = []
        self._numbers: dict[str, int] = {}
        self.of_attribute: list[list[int]] = [[] for _ in range(num_attributes)]

    def add(self, attribute: int, value: str) -> int:
        """Return the value's number, counting it as known for the attribute."""
        key = " ".join(value.lower().split())
        number = self._numbers.setdefault(key, len(self.values))
        if number == len(self.values):
            self.values.append(key)
        if number not in self.of_attribute[attribute]:
            self.of_attribute[attribute].append(number)
        return number

    def other(self, attribute: int, value: int, generator: torch.Generator) -> int:
        """Return another value: of this attribute, or of any where it has only one."""
        pool = self.of_attribute[attribute]
        pool = pool if len(pool) > 1 else list(range(len(self.values)))
        drawn = pool[int(torch.randint(len(pool), (1,), generator=generator))]
        return drawn if drawn != value else pool[(pool.index(value) + 1) % len(pool)]


class ValueRanker(nn.Module):
    """Text CNN, attribute and picture to a point among the values' vectors."""

    def __init__(
        self, config: RankerConfig, vocab_size: int, table: ValueTable, picture_dim: int
    ) -> None:
        super().__init__()
        self.config = config
        self.pieces = nn.Embedding(vocab_size, config.piece_dim)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.piece_dim, config.filters, width) for width in config.windows
        )
        self.attributes = nn.Embedding(len(table.of_attribute), config.dim)
        self.values = nn.Embedding(max(1, len(table.values)), config.dim)
        width = len(config.windows) * config.filters + config.dim + picture_dim
        self.mix = nn.Linear(width, config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, piece_ids_NL: Tensor, attribute_N: Tensor, picture_NP: Tensor) -> Tensor:
        """Return the query vectors [N, D]; pieces are padded with 0 to the widest window."""
        x_NEL = self.pieces(piece_ids_NL).mT
        mask_NL = piece_ids_NL != 0
        found = []
        for convolution in self.convolutions:
            y_NFK = F.relu(convolution(x_NEL))
            # A window counts where it starts inside the text: the answer must not depend on
            # how far others pad the batch.
            starts_NK = mask_NL[:, : y_NFK.shape[2]]
            found.append((y_NFK * starts_NK[:, None]).amax(2))
        joined = torch.cat([*found, self.attributes(attribute_N), picture_NP], dim=1)
        return self.out(F.relu(self.mix(joined)))

    def loss(self, query_ND: Tensor, right_N: Tensor, wrong_N: Tensor) -> Tensor:
        """Return the mean hinge loss; d = 1 - cosine."""
        near = F.cosine_similarity(query_ND, self.values(right_N))
        far = F.cosine_similarity(query_ND, self.values(wrong_N))
        return F.relu(self.config.margin - near + far).mean()


def pad_pieces(queries: Sequence[Query], width: int) -> Tensor:
    """Return piece ids [N, L], padded so that the widest window fits at every place."""
    longest = max(len(query.piece_ids) for query in queries) + width - 1
    ids = np.zeros((len(queries), longest), np.int64)
    for row, query in enumerate(queries):
        ids[row, : len(query.piece_ids)] = query.piece_ids
    return torch.from_numpy(ids)


def _vectors(model: ValueRanker, queries: Sequence[Query]) -> Tensor:
    pictures = torch.from_numpy(np.stack([query.picture for query in queries])).float()
    attributes = torch.tensor([query.attribute for query in queries])
    return model(pad_pieces(queries, max(model.config.windows)), attributes, pictures)


def fit_ranker(model: ValueRanker, table: ValueTable, queries: Sequence[Query]) -> Iterator[float]:
    """Train in place, yielding each epoch's mean loss; leaves the model in evaluation mode."""
    if not queries:
        raise ValueError("found no values to learn from, expected gold; run jobs/prepare.py")
    config = model.config
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, fused=True)
    steps = config.epochs * math.ceil(len(queries) / config.batch_size)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for epoch in range(config.epochs):
        model.train()
        order = generator_of(config.seed, "ranker", epoch)
        places = torch.randperm(len(queries), generator=order).split(config.batch_size)
        losses = []
        for rows in places:
            batch = [queries[i] for i in rows.tolist()]
            right = torch.tensor([query.value for query in batch])
            wrong = torch.tensor([table.other(q.attribute, q.value, order) for q in batch])
            loss = model.loss(_vectors(model, batch), right, wrong)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            decay.step()
            losses.append(float(loss.detach()))
        model.eval()
        yield sum(losses) / len(losses)


@torch.inference_mode()
def rank(model: ValueRanker, table: ValueTable, queries: Sequence[Query]) -> list[str | None]:
    """Return the nearest known value of each query's attribute; None for an attribute without."""
    found: list[str | None] = []
    for start in range(0, len(queries), 256):
        part = queries[start : start + 256]
        points_ND = F.normalize(_vectors(model, part), dim=1)
        scores_NV = points_ND @ F.normalize(model.values.weight, dim=1).T
        for query, scores_V in zip(part, scores_NV, strict=True):
            known = table.of_attribute[query.attribute]
            best = known[int(scores_V[known].argmax())] if known else None
            found.append(None if best is None else table.values[best])
    return found
