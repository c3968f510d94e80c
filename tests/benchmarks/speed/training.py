"""A training step of ours against the plain one: same weights, products, pairs and optimiser."""

import copy
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from speed.catalogue import listings
from speed.released import PLACES, PlainModel, ReleasedPipeline
from speed.report import Section
from speed.timing import median
from speed.workbench import Workbench
from torch import Tensor, nn

from ulsdram_core.batch import Example, collate
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.fit.optim import OptimConfig
from ulsdram_core.fit.step import TrainStep
from ulsdram_core.pairs import RangeConfig
from ulsdram_core.parts import ModelParts
from ulsdram_core.precision import PrecisionChoice, choose_precision
from ulsdram_core.schema import Product
from ulsdram_core.text import TextProcessor


def adam(rate: float) -> OptimConfig:
    """Adam without decay, at a fixed rate: nothing that two implementations could differ in."""
    return OptimConfig(
        kind="adam",
        image_rate=rate,
        text_rate=rate,
        schedule="constant",
        warmup=0,
        weight_decay=0,
    )


# For the timed steps: large random encoders in a few steps.
SLOW = adam(1e-5)
# Gold pairs only: which wrong attributes join depends on the last bit of a score.
RANGE = RangeConfig(max_wrong=0)
# For the loss curve: a model that has room to learn, fast enough to move its weights.
CURVE_RATE = 1e-3
CURVE_BATCHES = 4


class OurStep:
    """`TrainStep` on batches as long as their longest text."""

    def __init__(
        self, parts: ModelParts, optim: OptimConfig, choice: PrecisionChoice = "auto"
    ) -> None:
        model = parts.model.train()
        optimizer, schedule = optim.build(model, 1000)
        loss = ExtractionLoss(LossConfig(), RANGE)
        precision = choose_precision(choice, torch.device("cpu"))
        self._step = TrainStep(model, loss, optimizer, schedule, optim.clip, precision)
        self._size = parts.config.image.size

    def __call__(self, examples: Sequence[Example]) -> float:
        """One step; the loss per term."""
        return self._step([collate(examples, picture_size=self._size)]).loss


class PlainStep:
    """The usual loop: everything padded to 128, fp32, torch.optim.Adam."""

    def __init__(self, parts: ModelParts, optim: OptimConfig) -> None:
        self._reader = ReleasedPipeline(parts)
        self._optim = optim
        self.model: PlainModel = self._reader.model.train()
        for module in self.model.image_encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # frozen statistics, as in ours
        self._optimizer = torch.optim.Adam(self._groups())

    def _groups(self) -> list[dict]:
        image = list(self.model.image_encoder.parameters())
        known = {id(parameter) for parameter in image}
        rest = [p for p in self.model.parameters() if id(p) not in known and p.requires_grad]
        return [
            {"params": image, "lr": self._optim.image_rate},
            {"params": rest, "lr": self._optim.text_rate},
        ]

    def __call__(self, products: Sequence[Product], examples: Sequence[Example]) -> float:
        """One step; the loss per term. `examples` carry the gold, `products` all else."""
        batch = self._reader.read(products)
        product, attribute, tags = gold_rows(examples)
        units, logits = self.model.encode(batch)
        emissions, mask = self.model.tag(units, batch, product, attribute)
        gold = torch.zeros_like(logits)
        gold[product, attribute] = 1.0
        tag_loss = -self.model.crf(emissions, tags, mask, reduction="sum")
        range_loss = F.binary_cross_entropy_with_logits(logits, gold, reduction="sum")
        loss = (tag_loss + range_loss) / (len(product) + len(products))
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._optim.clip)
        self._optimizer.step()
        return float(loss.detach())


def gold_rows(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Product and attribute of each gold pair, and its tags padded to 128 places."""
    gold = collate(examples).gold
    tags = F.pad(gold.tags_GU, (0, PLACES - gold.tags_GU.shape[1]))
    return gold.window_G, gold.attribute_G, tags


@dataclass
class Steps:
    """What taking turns has given, by system."""

    losses: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "ours": []})
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "ours": []})

    @property
    def largest_gap(self) -> float:
        """The largest difference of the losses at the same step, by the plain one's first loss."""
        plain, ours = self.losses["plain"], self.losses["ours"]
        return max(abs(a - b) for a, b in zip(plain, ours, strict=True)) / plain[0]


def take_turns(
    parts: ModelParts,
    optim: OptimConfig,
    batches: Iterable[Sequence[Product]],
    *,
    precision: PrecisionChoice = "auto",
) -> Steps:
    """Train two copies of the parts on the same batches, step by step."""
    ours = OurStep(copy.deepcopy(parts), optim, precision)
    plain = PlainStep(copy.deepcopy(parts), optim)
    builder = ExampleBuilder(
        TextProcessor(parts.tokenizer, parts.config.text), parts.labels, parts.config.image
    )
    steps = Steps()
    for batch in batches:
        began = time.perf_counter()
        examples = list(builder(batch))
        steps.losses["ours"].append(ours(examples))
        middle = time.perf_counter()
        steps.losses["plain"].append(plain(batch, examples))
        steps.seconds["ours"].append(middle - began)
        steps.seconds["plain"].append(time.perf_counter() - middle)
    return steps


def batches_of(parts: ModelParts, size: int, count: int) -> list[list[Product]]:
    """Products of similar length in a batch, as `length_sorted_batches` makes them."""
    products = listings(size * count, size=parts.config.image.size, seed=9)
    products.sort(key=lambda p: sum(map(len, p.texts.values())))
    return [products[start : start + size] for start in range(0, len(products), size)]


def curve(bench: Workbench) -> tuple[str, Steps]:
    """Both systems learn the same few batches by heart, so that differences could add up."""
    sizes = bench.sizes
    subject = bench.small if sizes.curve_on_small else bench.tiny
    batches = batches_of(subject.parts, sizes.train_batch, CURVE_BATCHES)
    repeated = itertools.islice(itertools.cycle(batches), sizes.curve_steps)
    return subject.name, take_turns(subject.parts, adam(CURVE_RATE), repeated, precision="fp32")


def run(bench: Workbench) -> Section:
    """The timed steps of the large model; the losses of more steps of a smaller one."""
    parts, sizes = bench.large.parts, bench.sizes
    batches = batches_of(parts, sizes.train_batch, 1 + sizes.train_steps)
    section = _section(bench, take_turns(parts, SLOW, batches))
    name, steps = curve(bench)
    section.figures["curve"] = {
        "model": name,
        "losses": steps.losses,
        "largest_gap": steps.largest_gap,
    }
    plain, ours = steps.losses["plain"], steps.losses["ours"]
    section.notes.append(
        f"loss curve of {len(ours)} steps at rate {CURVE_RATE:g} over {CURVE_BATCHES} repeated "
        f"batches, {name}: plain {plain[0]:.3g} to {plain[-1]:.3g}, ours {ours[0]:.3g} to "
        f"{ours[-1]:.3g}; they differ by at most {100 * steps.largest_gap:.2g}% of the first loss"
    )
    return section


def _section(bench: Workbench, steps: Steps) -> Section:
    count = bench.sizes.train_batch
    # The first one warms up.
    steady = {name: values[1:] for name, values in steps.seconds.items()}
    faster = median([a / b for a, b in zip(steady["plain"], steady["ours"], strict=True)])
    section = Section(
        f"Training step of {count} products, {bench.large.name}, all weights trained",
        ("system", "s/step", "products/s", "times", "loss at first", "loss at last"),
    )
    for name, values in steady.items():
        seconds = median(values)
        losses = steps.losses[name]
        times_cell = faster if name == "ours" else 1.0
        section.rows.append((name, seconds, count / seconds, times_cell, losses[0], losses[-1]))
    pairs = zip(steps.losses["plain"], steps.losses["ours"], strict=True)
    gap = max(abs(a - b) / abs(a) for a, b in pairs)
    section.figures = {
        "train_step_vs_plain": faster,
        "seconds": steps.seconds,
        "losses": steps.losses,
        "largest_relative_gap": gap,
    }
    section.notes.append(
        f"losses of the same batches differ by at most {100 * gap:.3f}% over "
        f"{len(steps.losses['ours'])} steps; decoding pictures and reading texts are part of a step"
    )
    return section
