"""A training step of ours against the plain one: same weights, products, pairs and optimiser."""

import copy
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from speed.catalogue import listings
from speed.released import PLACES, PlainModel, ReleasedPipeline
from speed.report import Section
from speed.timing import median
from speed.workbench import Workbench
from torch import Tensor, nn

from ulsdram_core.batch import Example, collate
from ulsdram_core.examples import ExampleBuilder
from ulsdram_core.losses import ExtractionLoss, LossConfig
from ulsdram_core.optim import OptimConfig
from ulsdram_core.pairs import RangeConfig
from ulsdram_core.parts import ModelParts
from ulsdram_core.precision import choose_precision
from ulsdram_core.schema import Product
from ulsdram_core.step import TrainStep
from ulsdram_core.text import TextProcessor

# Adam without decay, at a fixed rate: nothing that two implementations could differ in.
OPTIM = OptimConfig(
    kind="adam", image_rate=1e-5, text_rate=1e-5, schedule="constant", warmup=0, weight_decay=0
)
# Gold pairs only: which wrong attributes join depends on the last bit of a score.
RANGE = RangeConfig(max_wrong=0)


class OurStep:
    """`TrainStep` on batches as long as their longest text."""

    def __init__(self, parts: ModelParts) -> None:
        model = parts.model.train()
        optimizer, schedule = OPTIM.build(model, 1000)
        loss = ExtractionLoss(LossConfig(), RANGE)
        precision = choose_precision("auto", torch.device("cpu"))
        self._step = TrainStep(model, loss, optimizer, schedule, OPTIM.clip, precision)
        self._size = parts.config.image.size

    def __call__(self, examples: Sequence[Example]) -> float:
        """One step; the loss per term."""
        return self._step([collate(examples, picture_size=self._size)]).loss


class PlainStep:
    """The usual loop: everything padded to 128, fp32, torch.optim.Adam."""

    def __init__(self, parts: ModelParts) -> None:
        self._reader = ReleasedPipeline(parts)
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
            {"params": image, "lr": OPTIM.image_rate},
            {"params": rest, "lr": OPTIM.text_rate},
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
        nn.utils.clip_grad_norm_(self.model.parameters(), OPTIM.clip)
        self._optimizer.step()
        return float(loss.detach())


def gold_rows(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Product and attribute of each gold pair, and its tags padded to 128 places."""
    gold = collate(examples).gold
    tags = F.pad(gold.tags_GU, (0, PLACES - gold.tags_GU.shape[1]))
    return gold.window_G, gold.attribute_G, tags


def run(bench: Workbench) -> Section:
    """Steps take turns on the same batches; both curves are shown."""
    parts = bench.large.parts
    count = bench.sizes.train_batch
    products = listings(count * (1 + bench.sizes.train_steps), size=parts.config.image.size, seed=9)
    # Of similar length, as `length_sorted_batches` makes them.
    products.sort(key=lambda p: sum(map(len, p.texts.values())))
    ours, plain = OurStep(copy.deepcopy(parts)), PlainStep(parts)
    builder = ExampleBuilder(
        TextProcessor(parts.tokenizer, parts.config.text), parts.labels, parts.config.image
    )
    losses: dict[str, list[float]] = {"plain": [], "ours": []}
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for start in range(0, len(products), count):
        some = products[start : start + count]
        began = time.perf_counter()
        examples = list(builder(some))
        losses["ours"].append(ours(examples))
        middle = time.perf_counter()
        losses["plain"].append(plain(some, examples))
        times["ours"].append(middle - began)
        times["plain"].append(time.perf_counter() - middle)
    return _section(bench, losses, times)


def _section(
    bench: Workbench, losses: dict[str, list[float]], times: dict[str, list[float]]
) -> Section:
    count = bench.sizes.train_batch
    steady = {name: values[1:] for name, values in times.items()}  # the first one warms up
    faster = median([a / b for a, b in zip(steady["plain"], steady["ours"], strict=True)])
    section = Section(
        f"Training step of {count} products, {bench.large.name}, all weights trained",
        ("system", "s/step", "products/s", "times", "loss at first", "loss at last"),
    )
    for name, values in steady.items():
        seconds = median(values)
        curve = losses[name]
        times_cell = faster if name == "ours" else 1.0
        section.rows.append((name, seconds, count / seconds, times_cell, curve[0], curve[-1]))
    gap = max(abs(a - b) / abs(a) for a, b in zip(losses["plain"], losses["ours"], strict=True))
    section.figures = {
        "train_step_vs_plain": faster,
        "seconds": times,
        "losses": losses,
        "largest_relative_gap": gap,
    }
    section.notes.append(
        f"losses of the same batches differ by at most {100 * gap:.3f}% over "
        f"{len(losses['ours'])} steps; decoding pictures and reading texts are part of a step"
    )
    return section
