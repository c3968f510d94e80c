"""Real products on their way through a model, for measuring one part at a time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from speed.report import Section
from speed.timing import interleaved, median, ratio
from speed.workbench import Subject
from torch import Tensor

from ulsdram_core.batch import Batch, Example, collate
from ulsdram_core.method.model import UlsDram
from ulsdram_core.method.range_policy import PairFeatures
from ulsdram_core.pairs import predicted_pairs
from ulsdram_core.precision import autocast

Call = Callable[[], object]
COLUMNS = ("optimisation", "without ms", "with ms", "times faster", "in use")


@dataclass(frozen=True)
class Item:
    """One optimisation: the work without it and with it, for `count` products."""

    name: str
    without: Call
    with_it: Call
    count: int
    used: bool = True
    """Whether the product uses it here; what does not pay is only tried."""
    note: str = ""


@dataclass(frozen=True)
class Prepared:
    """A batch of real products on its way through the model."""

    subject: Subject
    batch: Batch
    embedded: Tensor
    units: Tensor
    window_N: Tensor
    attribute_N: Tensor
    features: PairFeatures
    mask_NU: Tensor
    emissions: Tensor

    @property
    def model(self) -> UlsDram:
        """The subject's."""
        return self.subject.parts.model

    def numbers(self) -> AbstractContextManager[object]:
        """The number format in which the extractor computes here."""
        return autocast(self.subject.extractor.device, self.subject.extractor.precision)


@torch.inference_mode()
def prepare(subject: Subject, count: int) -> Prepared:
    """Run the model up to the tags of `count` products."""
    extractor = subject.extractor
    model = extractor.model
    decoded = subject.decoded[:count]
    windows = [extractor.text.encode(product.texts)[0] for product in decoded]
    examples = [Example(w, p.pictures) for w, p in zip(windows, decoded, strict=True)]
    batch = collate(examples, picture_size=extractor.config.image.size)
    with autocast(extractor.device, extractor.precision):
        encoded = model.encode(batch)
        pairs = predicted_pairs(encoded.logits_BC, 0.5, most=64)
        if not len(pairs):
            raise RuntimeError("the fitted model puts no attribute in any range; fit it for longer")
        features = model.policy(encoded.units_BUH, pairs.window_N, pairs.attribute_N)
        mask = batch.unit_mask_BU[pairs.window_N]
        emissions = model.tagger(features, mask)
    return Prepared(
        subject,
        batch,
        encoded.embedded_BLH,
        encoded.units_BUH,
        pairs.window_N,
        pairs.attribute_N,
        features,
        mask,
        emissions,
    )


def measure_item(section: Section, item: Item, rounds: int) -> None:
    """Add one row: both calls take turns; once for what is not in use, as it may be slow."""
    rounds = rounds if item.used else 1
    times = interleaved({"without": item.without, "with": item.with_it}, rounds)
    faster = ratio(times, "without", "with")
    spent = [1e3 * median(times[name]) / item.count for name in ("without", "with")]
    section.rows.append((item.name, *spent, faster, "yes" if item.used else "no"))
    section.figures[item.name] = {"ms": spent, "times": faster, "in_use": item.used}
    if item.note:
        section.notes.append(f"{item.name}: {item.note}")
