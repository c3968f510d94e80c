"""An extraction taken apart: each part within a stage that is timed or counted."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ulsdram_core.batch import Batch, Example, collate, length_batches
from ulsdram_core.extractor import Extractor
from ulsdram_core.method.decoding import decode_spans, spans_to_values
from ulsdram_core.method.model import ModelOutput
from ulsdram_core.pairs import predicted_pairs
from ulsdram_core.precision import autocast
from ulsdram_core.schema import DecodedProduct

Array = Tensor | np.ndarray


class Clock:
    """Seconds by stage; bytes that a stage cannot help moving, and how often it ran."""

    def __init__(self) -> None:
        self.total: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        began = time.perf_counter()
        yield
        self.total[name] += time.perf_counter() - began
        self.calls[name] += 1

    def moved(self, name: str, *arrays: Array) -> None:
        """Count what the stage reads or writes."""
        self.bytes[name] += sum(array.nbytes for array in arrays)


class Counter(Clock):
    """Operations by stage."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what is inside."""
        with FlopCounterMode(display=False) as counter:
            yield
        self.total[name] += counter.get_total_flops()
        self.calls[name] += 1


@torch.no_grad()
def walk(extractor: Extractor, products: Sequence[DecodedProduct], stage: Clock) -> None:
    """Do what `Extractor.extract_decoded` does, each part inside `stage`."""
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
        some = [examples[i] for i in group]
        with stage("stacking"):
            batch = collate(some, picture_size=extractor.config.image.size)
        stage.moved("stacking", batch.pictures_K3SS, batch.pictures_K3SS)  # read, written
        with autocast(extractor.device, extractor.precision):
            output = _forward(extractor, batch, stage)
        _read_tags(extractor, output, stage)
        with stage("span probabilities"):  # decodes once more
            spans = decode_spans(extractor.model.tagger, output, batch.unit_source_BU.numpy())
        with stage("values"):
            spans_to_values(
                spans,
                [example.window for example in some],
                [owners[i].texts for i in group],
                sources=extractor.config.text.sources,
                attributes=extractor.labels.attributes,
            )


def _forward(extractor: Extractor, batch: Batch, stage: Clock) -> ModelOutput:
    """The model's parts, one after the other."""
    model = extractor.model
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
        return ModelOutput(logits, pairs, model.tagger(guided, mask), mask)


def _read_tags(extractor: Extractor, output: ModelOutput, stage: Clock) -> None:
    emissions, mask = output.emissions_NUT, output.mask_NU
    with stage("CRF decode"):
        tags = extractor.model.tagger.decode(emissions, mask)
    stage.moved("CRF decode", emissions, mask, tags)
    # Probabilities need the scores of all tags before a unit and of all after it.
    stage.moved("span probabilities", emissions, emissions, mask)
