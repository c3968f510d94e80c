"""The extractor: products in, attribute values out, one process, one device.

Axes: B windows, C attributes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ulsdram_core.batch import Batch, Example, collate, length_batches
from ulsdram_core.checkpoint import load_model, save_model
from ulsdram_core.image import decode_usable
from ulsdram_core.method.decoding import (
    decode_spans,
    keep_single,
    merge_repeats,
    range_scores,
    spans_to_values,
)
from ulsdram_core.method.model import ModelOutput
from ulsdram_core.pairs import Pairs, above, predicted_pairs
from ulsdram_core.parts import ExtractorConfig, ModelParts
from ulsdram_core.precision import PrecisionChoice, autocast, choose_device, choose_precision
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import AttributeScore, DecodedProduct, Extraction, Product, Status, Value
from ulsdram_core.text import TextError, TextProcessor, Window, is_unicode


@dataclass
class _Found:
    """What the windows of one product have given so far."""

    values: list[Value]
    range: dict[int, float]


class Extractor:
    """Extracts attribute values from products with a trained model."""

    def __init__(
        self,
        parts: ModelParts,
        *,
        device: str | torch.device | None = None,
        precision: PrecisionChoice = "auto",
        max_pieces: int = 4096,
        max_windows: int = 64,
    ) -> None:
        """`max_pieces` (padded) and `max_windows` bound one batch through the model."""
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.parts = parts
        self.config: ExtractorConfig = parts.config
        self.labels = parts.labels
        self.model = parts.model.to(self.device).eval()
        self.text = TextProcessor(parts.tokenizer, parts.config.text)
        self.max_pieces = max_pieces
        self.max_windows = max_windows
        limits = parts.config.thresholds
        default = parts.config.range.threshold
        self._threshold_C = torch.tensor(
            [limits.attribute.get(name, default) for name in self.labels.attributes],
            device=self.device,
        )
        self._single = frozenset(self.labels.single)
        self._model_id: str | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        precision: PrecisionChoice = "auto",
    ) -> "Extractor":
        """Open a model directory."""
        return cls(load_model(path), device=device, precision=precision)

    def save(self, path: str | Path) -> Path:
        """Write the model directory."""
        return save_model(self.parts, path)

    @property
    def model_id(self) -> str:
        """Fingerprint of everything that decides an answer."""
        if self._model_id is None:
            self._model_id = self.parts.model_id()
        return self._model_id

    def extract(self, products: Sequence[Product]) -> list[Extraction]:
        """Return one extraction per product, in order."""
        return self.extract_decoded([self.decode(product) for product in products])

    def decode(self, product: Product) -> DecodedProduct:
        """Decode a product's pictures; where none can be used, the first one's reason counts."""
        pictures: list[np.ndarray] = []
        reasons: list[Reason] = []
        if self.config.image is not None:
            pictures, reasons = decode_usable(product.pictures, self.config.image)
            reasons.append(Reason.NO_PICTURE)
        reason = None if pictures or not reasons else reasons[0]
        return DecodedProduct(
            product.product_id, product.texts, tuple(pictures), product.category, reason
        )

    def extract_decoded(self, products: Sequence[DecodedProduct]) -> list[Extraction]:
        """Return one extraction per product, in order; windows are batched by length."""
        results: list[Extraction | None] = [None] * len(products)
        found: dict[int, _Found] = {}
        owners: list[int] = []
        examples: list[Example] = []
        for place, product in enumerate(products):
            windows = self._windows(product)
            if isinstance(windows, Reason):
                results[place] = Extraction(product.product_id, Status.QUARANTINED, windows)
                continue
            found[place] = _Found([], {})
            owners += [place] * len(windows)
            examples += [Example(window, product.pictures) for window in windows]
        for group in self._groups(examples):
            places = [owners[i] for i in group]
            group_products = [products[place] for place in places]
            group_examples = [examples[i] for i in group]
            for place, window in zip(
                places, self._run(group_examples, group_products), strict=True
            ):
                found[place].values += window.values
                for attribute, score in window.range.items():
                    known = found[place].range.get(attribute, 0.0)
                    found[place].range[attribute] = max(known, score)
        for place, gathered in found.items():
            results[place] = self._extraction(products[place], gathered)
        return [result for result in results if result is not None]

    def _windows(self, product: DecodedProduct) -> list[Window] | Reason:
        """Return the product's windows, or why it has none."""
        read = (product.texts.get(source) for source in self.config.text.sources)
        if not all(is_unicode(text or "") for text in read):
            return Reason.INVALID_TEXT
        try:
            return self.text.encode(product.texts) or Reason.EMPTY_TEXT
        except TextError as error:
            return error.reason

    def _groups(self, examples: Sequence[Example]) -> Iterator[list[int]]:
        lengths = [len(example.window.piece_ids) for example in examples]
        yield from length_batches(lengths, max_pieces=self.max_pieces, max_rows=self.max_windows)

    @torch.inference_mode()
    def _run(self, examples: list[Example], products: list[DecodedProduct]) -> list[_Found]:
        """Run one batch; return what each window gives."""
        size = self.config.image.size if self.config.image else 1
        batch = collate(examples, picture_size=size)
        allowed_BC = self._allowed(products)
        output = self._forward(batch.to(self.device), allowed_BC)
        windows = [example.window for example in examples]
        spans = decode_spans(self.model.tagger, output, batch.unit_source_BU.numpy())
        if allowed_BC is not None:  # without a policy, nothing else keeps to the category
            spans = spans.within(allowed_BC.cpu().numpy())
        values = spans_to_values(
            spans,
            windows,
            [product.texts for product in products],
            sources=self.config.text.sources,
            attributes=self.labels.attributes,
        )
        ranges: list[list[tuple[int, float]]] = [[] for _ in windows]
        if output.logits_BC is not None:
            scores_BC = torch.sigmoid(output.logits_BC.float())
            if allowed_BC is not None:
                scores_BC = scores_BC * allowed_BC
            ranges = range_scores(output.logits_BC, self._chosen(scores_BC))
        return [_Found(row, dict(scores)) for row, scores in zip(values, ranges, strict=True)]

    def _chosen(self, scores_BC: Tensor) -> Tensor:
        return above(scores_BC, self._threshold_C, self.config.range.max_attributes)

    def _forward(self, batch: Batch, allowed_BC: Tensor | None) -> ModelOutput:
        def choose(logits_BC: Tensor) -> Pairs:
            return predicted_pairs(
                logits_BC,
                self._threshold_C,
                most=self.config.range.max_attributes,
                allowed_BC=allowed_BC,
            )

        with autocast(self.device, self.precision):
            return self.model(batch, choose)

    def _allowed(self, products: Sequence[DecodedProduct]) -> Tensor | None:
        if not self.config.scope_to_category:
            return None
        rows = np.stack([self.labels.allowed(product.category) for product in products])
        return torch.from_numpy(rows).to(self.device)

    def _extraction(self, product: DecodedProduct, found: _Found) -> Extraction:
        keeps = self.config.thresholds.keeps
        values = [v for v in found.values if keeps(v.attribute, v.confidence)]
        values.sort(key=lambda v: (self.config.text.sources.index(v.source), v.start, v.end))
        told = keep_single(values, self._single)
        best_first = sorted(found.range.items(), key=lambda item: (-item[1], item[0]))
        return Extraction(
            product.product_id,
            Status.OK if product.reason is None else Status.DEGRADED,
            product.reason,
            merge_repeats(told) if self.config.merge_repeats else told,
            tuple(AttributeScore(self.labels.attributes[a], score) for a, score in best_first),
        )
