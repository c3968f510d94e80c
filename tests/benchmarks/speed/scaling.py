"""What grows and what must not: long runs, and ever more attributes."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from speed.catalogue import listings
from speed.report import Section
from speed.timing import interleaved, median, ratio
from speed.workbench import Workbench

from ulsdram_core.extractor import Extractor
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.parts import ExtractorConfig, ModelParts, assemble
from ulsdram_core.schema import DecodedProduct, Product

IN_RANGE = 4  # attributes that every product has, however many there are
BATCH = 64


def run(bench: Workbench) -> Section:
    """Attributes always; the long run where the sizes ask for it."""
    section = Section("Scaling", ("what", "attributes", "ms/product", "times the smallest"))
    _attributes(section, bench)
    if bench.sizes.long_run:
        _long_run(section, bench)
    else:
        section.notes.append("the run of 100,000 products belongs to the full benchmark")
    return section


def model_with(num_attributes: int, parts: ModelParts, *, multi_class: bool) -> Extractor:
    """A random model over many attributes, of which each product has the same few.

    `multi_class`: one tagger over 2C + 1 tags instead of a range and pairs.
    """
    model = parts.config.model.model_dump()
    if multi_class:
        model |= {"policy": {"kind": "none"}, "head": "none"}
    config = ExtractorConfig(
        model=ModelConfig.model_validate(model), text=parts.config.text, image=parts.config.image
    )
    labels = LabelSet(attributes=tuple(f"attribute {i}" for i in range(num_attributes)))
    torch.manual_seed(0)
    built = assemble(config, labels, parts.tokenizer, random_init=True)
    if built.model.head is not None:
        with torch.no_grad():
            built.model.head.score.weight.zero_()
            built.model.head.score.bias.fill_(-9.0)[:IN_RANGE] = 9.0
    return Extractor(built, device="cpu")


def _attributes(section: Section, bench: Workbench) -> None:
    """Products per second over ever more attributes: pairs, and the multi-class tagger."""
    parts = bench.small.parts
    counts = bench.sizes.attributes
    pairs = {count: model_with(count, parts, multi_class=False) for count in counts}
    classes = {count: model_with(count, parts, multi_class=True) for count in counts}
    some = bench.small.decoded[:16]
    # Thousands of tags cost a second of Viterbi per product: fewer products, fewer rounds.
    few = some[:2]
    rounds = bench.sizes.rounds
    for name, models, products, times in (
        ("range and pairs", pairs, some, rounds),
        ("multi-class, 2C + 1 tags", classes, few, 1),
    ):
        calls = {
            str(count): lambda m=model, p=products: m.extract_decoded(p)
            for count, model in models.items()
        }
        found = interleaved(calls, times)
        for count in counts:
            growth = ratio(found, str(count), str(counts[0]))
            spent = 1e3 * median(found[str(count)]) / len(products)
            section.rows.append((name, count, spent, growth))
            section.figures[f"{name}, {count}"] = {"ms": spent, "growth": growth}
    section.notes.append(
        f"each product has {IN_RANGE} attributes in its range; the tagger of 2C + 1 tags is the "
        "one that the paper calls T_o"
    )


def _long_run(section: Section, bench: Workbench) -> None:
    """The last tenth of a long run against its first: nothing may pile up."""
    extractor = bench.tiny.extractor
    pool = bench.tiny.decoded
    count = bench.sizes.long_run
    tenth = count // 10
    finished = []
    for batch in _stream(pool, count):
        extractor.extract_decoded(batch)
        finished.append((time.perf_counter(), len(batch)))
    times = np.array([moment for moment, _ in finished])
    done = np.cumsum([size for _, size in finished])
    first = int(np.searchsorted(done, tenth))
    last = int(np.searchsorted(done, count - tenth))
    rates = [
        (done[first] - done[0]) / (times[first] - times[0]),
        (done[-1] - done[last]) / (times[-1] - times[last]),
    ]
    for name, rate in zip(("first tenth", "last tenth"), rates, strict=True):
        section.rows.append((f"{count:,} products, {name}", None, 1e3 / rate, rates[0] / rate))
    section.figures["last_vs_first"] = rates[1] / rates[0]
    section.notes.append(
        f"{count:,} products: the last tenth ran at {rates[1] / rates[0]:.3f} of the first's rate "
        f"({rates[0]:.0f}/s, tiny model)"
    )


def _stream(pool: list[DecodedProduct], count: int) -> Iterator[list[DecodedProduct]]:
    """Products with texts of their own and pictures from the pool, batch by batch."""
    texts = listings_texts(2048)
    for start in range(0, count, BATCH):
        numbers = range(start, min(count, start + BATCH))
        yield [
            DecodedProduct(
                str(number),
                {"title": f"{texts[number % len(texts)]} no {number}"},
                pool[number % len(pool)].pictures,
            )
            for number in numbers
        ]


def listings_texts(count: int) -> list[str]:
    """Titles of the demo catalogue."""
    products: list[Product] = listings(count, size=32, seed=21)
    return [product.texts["title"] for product in products]
