"""Pre-training in one process on pairs held in memory: what the cluster's loop is compared with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from ulsdram_core.eclip.dual_encoder import DualEncoder
from ulsdram_core.eclip.growth import Growth
from ulsdram_core.eclip.pairs import Pair, draw_streams, make_pair, order_pairs
from ulsdram_core.eclip.parts import EclipParts
from ulsdram_core.eclip.pretraining import PretrainConfig, PretrainStep, build_step
from ulsdram_core.eclip.streams import MultiStream, check_norms
from ulsdram_core.eclip.targets import TargetConfig
from ulsdram_core.eclip.validation import embed_pairs, pair_figures
from ulsdram_core.errors import PictureError
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.precision import Precision, choose_precision
from ulsdram_core.schema import Product
from ulsdram_core.seeding import generator_of, seed_of
from ulsdram_core.text import TextProcessor


@dataclass(frozen=True)
class PretrainEpoch:
    """One finished epoch of `pretrain`."""

    number: int
    loss: float
    streams: int
    """Streams per batch at its end."""
    valid: dict[str, float] = field(default_factory=dict)


def read_pairs(
    products: Sequence[tuple[Product, str | None]], text: TextProcessor, image: ImageConfig
) -> Iterator[Pair]:
    """Decode (product, catalog id) rows; rows without usable text or picture are left out."""
    for product, catalog_id in products:
        pictures = []
        for data in product.pictures:
            try:
                pictures.append(decode_picture(data, image))
            except PictureError:
                continue
        pair = make_pair(product, pictures, text, catalog_id)
        if pair is not None:
            yield pair


def validate_pairs(
    model: DualEncoder,
    pairs: Sequence[Pair],
    targets: TargetConfig,
    *,
    stream_pairs: int,
    picture_size: int,
    precision: Precision = "fp32",
) -> dict[str, float]:
    """Loss per pair and R@k in both directions; any listing of the same product is a hit."""
    vectors = embed_pairs(
        model, pairs, stream_pairs=stream_pairs, picture_size=picture_size, precision=precision
    )
    catalogs = torch.tensor([pair.catalog for pair in pairs])
    return pair_figures(vectors, catalogs, float(model.scale().detach()), targets)


def batches_of(
    pairs: Sequence[Pair], config: PretrainConfig, *, epoch: int, growth: Growth, start: int = 0
) -> Iterator[list[Pair]]:
    """The epoch's batches from place `start` of its order on; the last one may be smaller."""
    order = order_pairs(
        [pair.catalog for pair in pairs],
        generator_of(config.seed, "order", epoch),
        group=config.group,
    )
    size = config.stream_pairs * growth.streams
    for place in range(start, len(order), size):
        yield [pairs[i] for i in order[place : place + size]]


def pretrain(
    parts: EclipParts,
    pairs: Sequence[Pair],
    config: PretrainConfig,
    *,
    valid: Sequence[Pair] = (),
    device: str | torch.device = "cpu",
) -> Iterator[PretrainEpoch]:
    """Train `parts.model` in place, yielding after every epoch; leaves it in evaluation mode."""
    if len(pairs) < 2:
        raise ValueError(f"found {len(pairs)} pairs, expected at least two; check the data")
    device = torch.device(device)
    model = parts.model.to(device)
    check_norms(model, num_streams=config.growth.max_streams, num_workers=1)
    precision = choose_precision(config.precision, device)
    streams = MultiStream(model, config.targets, precision=precision)
    step = build_step(model, config, streams, total_pairs=config.epochs * len(pairs))
    parts.config = parts.config.model_copy(update={"is_aligned": True})
    run = _Course(parts, config, step, list(valid[: config.valid_pairs]), config.growth.start())
    for number in range(1, config.epochs + 1):
        yield run.epoch(number, pairs)


@dataclass
class _Course:
    """Where an in-process run stands."""

    parts: EclipParts
    config: PretrainConfig
    step: PretrainStep
    valid: list[Pair]
    growth: Growth
    pairs_seen: int = 0

    def epoch(self, number: int, pairs: Sequence[Pair]) -> PretrainEpoch:
        total, figures, start = 0.0, dict[str, float](), 0
        for part in range(1, self.config.validations + 1):
            end = len(pairs) * part // self.config.validations
            loss, start = self._train(number, pairs, start, end)
            total += loss
            figures = self._validate()
        loss = total / len(pairs)
        return PretrainEpoch(number, loss, self.growth.streams, figures)

    def _train(self, number: int, pairs: Sequence[Pair], start: int, end: int) -> tuple[float, int]:
        """Train from place `start` until at least `end`; returns summed loss and the place."""
        model = self.parts.model.train()
        device = model.log_scale.device
        size = self.parts.config.image.size
        total = 0.0
        batches = batches_of(pairs, self.config, epoch=number, growth=self.growth, start=start)
        for batch in batches:
            torch.manual_seed(seed_of(self.config.seed, "chance", number, start))
            streams = draw_streams(
                batch,
                stream_pairs=self.config.stream_pairs,
                picture_size=size,
                seed=seed_of(self.config.seed, "draw", number, start),
            )
            found = self.step([s.to(device) for s in streams], pairs_seen=self.pairs_seen)
            self.pairs_seen += len(batch)
            total += found.loss * len(batch)
            start += len(batch)
            if start >= end:
                break
        model.eval()
        return total, start

    def _validate(self) -> dict[str, float]:
        if not self.valid:
            return {}
        figures = validate_pairs(
            self.parts.model,
            self.valid,
            self.config.targets,
            stream_pairs=self.config.stream_pairs,
            picture_size=self.parts.config.image.size,
            precision=self.step.streams.precision,
        )
        self.growth = self.config.growth.after(self.growth, figures["loss"])
        return figures
