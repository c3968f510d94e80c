"""Where an extraction's time goes, part by part, with the limit beside each part."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from speed.catalogue import photo
from speed.report import Section
from speed.timing import interleaved, median
from speed.workbench import Subject, Workbench
from torch.utils.flop_counter import FlopCounterMode

from pipelines.nightly.staging import RowStamp, rows_table
from ulsdram_core.batch import Example, collate, length_batches
from ulsdram_core.decoding import decode_spans, spans_to_values
from ulsdram_core.extractor import DecodedProduct, Extractor
from ulsdram_core.image import decode_picture
from ulsdram_core.model import ModelOutput
from ulsdram_core.pairs import predicted_pairs

Stage = Callable[[str], AbstractContextManager[object]]
# Below this the arithmetic is not what a part is about.
LEAST_GFLOP = 0.005


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.total: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        began = time.perf_counter()
        yield
        self.total[name] += time.perf_counter() - began


class Counter(Clock):
    """Operations by stage."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what is inside."""
        with FlopCounterMode(display=False) as counter:
            yield
        self.total[name] += counter.get_total_flops()


@torch.no_grad()
def walk(extractor: Extractor, products: Sequence[DecodedProduct], stage: Stage) -> None:
    """Do what `Extractor.extract_decoded` does, each part inside `stage`."""
    model = extractor.model
    with stage("tokenizer"):
        examples = [
            Example(window, product.pictures)
            for product in products
            for window in extractor.text.encode(product.texts)
        ]
    owners = [product for product in products for _ in extractor.text.encode(product.texts)]
    lengths = [len(example.window.piece_ids) for example in examples]
    for group in length_batches(
        lengths, max_pieces=extractor.max_pieces, max_rows=extractor.max_windows
    ):
        with stage("stacking"):
            batch = collate([examples[i] for i in group], picture_size=extractor.config.image.size)
        with stage("image encoder"):
            pictures = model.see(batch)
        with stage("embeddings, TIR"):
            embedded = model.text_encoder.embed(batch.piece_ids_BL, batch.piece_types_BL)
            sequence = model.fusion.early(embedded, batch.piece_mask_BL, pictures)
        with stage("text encoder"):
            last, before = model.text_encoder(sequence, batch.piece_mask_BL)
        with stage("attribute head"):
            logits = model.head(last[:, 0], before[:, 0])
            pairs = predicted_pairs(logits, extractor._threshold_C, most=64)
        with stage("guidance, BiLSTM"):
            index = batch.unit_piece_BU[..., None].expand(-1, -1, last.shape[-1])
            guided = model.policy(last.gather(1, index), pairs.window_N, pairs.attribute_N)
            mask = batch.unit_mask_BU[pairs.window_N]
            output = ModelOutput(logits, pairs, model.tagger(guided, mask), mask)
        with stage("CRF decode"):
            model.tagger.decode(output.emissions_NUT, mask)
        with stage("CRF decode, span probabilities"):
            spans = decode_spans(model.tagger, output, batch.unit_source_BU.numpy())
        with stage("values"):
            spans_to_values(
                spans,
                [examples[i].window for i in group],
                [owners[i].texts for i in group],
                sources=extractor.config.text.sources,
                attributes=extractor.labels.attributes,
            )


def run(bench: Workbench) -> Section:
    """The large model's parts."""
    section = Section(
        "Components",
        ("model", "part", "products/s", "ms/product", "share", "GFLOP/s", "of peak"),
    )
    for subject in (bench.large, bench.small)[: 1 if bench.is_tiny else 2]:
        section.figures[subject.name] = _measure(section, subject, bench)
    section.notes.append(
        "products/s: if there were nothing else; of peak: of the best fp32 rate measured here, "
        f"{bench.peak.best:.0f} GFLOP/s. Pictures of 224 px; larger ones below"
    )
    _decode_rows(section, bench)
    return section


def _measure(section: Section, subject: Subject, bench: Workbench) -> dict[str, object]:
    extractor, products = subject.extractor, subject.products
    image, count = extractor.config.image, len(products)
    extractions = extractor.extract_decoded(subject.decoded)
    rounds = []
    for number in range(1 + bench.sizes.rounds):
        clock = Clock()
        with clock("decode + resize"):
            for product in products:
                decode_picture(product.pictures[0], image)
        walk(extractor, subject.decoded, clock)
        with clock("Arrow rows"):
            stamp = RowStamp("model", "run", 32)
            rows_table(extractions, ["0" * 32] * count, stamp)
        if number:
            rounds.append(clock.total)
    seconds = {name: median([one[name] for one in rounds]) for name in rounds[0]}
    viterbi = seconds["CRF decode"]
    both = seconds.pop("CRF decode, span probabilities")
    seconds["span probabilities"] = max(0.0, both - viterbi)
    counter = Counter()
    walk(extractor, subject.decoded, counter)
    total = sum(seconds.values())
    figures: dict[str, object] = {}
    for name, spent in seconds.items():
        gflop = counter.total.get(name, 0.0) / count / 1e9
        rate = gflop * count / spent if spent and gflop > LEAST_GFLOP else None
        share = rate / bench.peak.best if rate else None
        figures[name] = {"seconds_per_product": spent / count, "gflop_per_product": gflop}
        section.rows.append(
            (
                subject.name,
                name,
                count / spent if spent else None,
                1e3 * spent / count,
                spent / total,
                rate,
                share,
            )
        )
    section.rows.append((subject.name, "all", count / total, 1e3 * total / count, 1.0, None, None))
    return figures


def _decode_rows(section: Section, bench: Workbench) -> None:
    image = bench.large.extractor.config.image
    for width, height in ((500, 375), (1000, 1000)):
        data = photo(width, height)
        calls = {"decode": lambda data=data: [decode_picture(data, image) for _ in range(10)]}
        seconds = median(interleaved(calls, bench.sizes.rounds)["decode"]) / 10
        name = f"decode + resize of {width}x{height}"
        section.rows.append(("one core", name, 1 / seconds, 1e3 * seconds, None, None, None))
        section.figures[name] = {"seconds_per_product": seconds}
