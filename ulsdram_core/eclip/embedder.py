"""Products in, vectors out: of the text, of the picture, and of both.

Axes: N products, E embedding, H text features, V picture features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ulsdram_core.batch import Batch, Example, collate, length_batches
from ulsdram_core.eclip.parts import EclipParts, load_eclip
from ulsdram_core.precision import PrecisionChoice, autocast, choose_device, choose_precision
from ulsdram_core.schema import DecodedProduct
from ulsdram_core.text import TextError, TextProcessor, Window


@dataclass(frozen=True)
class Vectors:
    """Rows of fp32 on the CPU; a row without text or picture is zero there and marked."""

    text: Tensor
    picture: Tensor
    has_text_N: Tensor
    has_picture_N: Tensor

    def joint(self) -> Tensor:
        """Return [N, E] the unit mean of both embeddings, or the one there is; else zeros."""
        return F.normalize(self.text + self.picture, dim=-1)


class Embedder:
    """Embeds products with a trained dual encoder."""

    def __init__(
        self,
        parts: EclipParts,
        *,
        device: str | torch.device | None = None,
        precision: PrecisionChoice = "auto",
        max_rows: int = 64,
        max_pieces: int = 4096,
    ) -> None:
        """`max_rows` products and `max_pieces` padded pieces bound one batch."""
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.parts = parts
        self.model = parts.model.to(self.device).eval()
        self.text = TextProcessor(parts.tokenizer, parts.config.text)
        self.max_rows = max_rows
        self.max_pieces = max_pieces

    @classmethod
    def load(cls, path: str | Path, *, precision: PrecisionChoice = "auto") -> "Embedder":
        """Open a model directory."""
        return cls(load_eclip(path), precision=precision)

    def embed(self, products: Sequence[DecodedProduct]) -> Vectors:
        """Return unit embeddings [N, E] of both kinds."""
        return self.project(self.features(products))

    def project(self, found: Vectors) -> Vectors:
        """Return the features as embeddings."""
        texts = self._project(found.text, found.has_text_N, is_text=True)
        pictures = self._project(found.picture, found.has_picture_N, is_text=False)
        return Vectors(texts, pictures, found.has_text_N, found.has_picture_N)

    @torch.inference_mode()
    def features(self, products: Sequence[DecodedProduct]) -> Vectors:
        """Return what the encoders make of them before the heads: text [N, H], picture [N, V]."""
        model = self.model
        texts = torch.zeros(len(products), model.text_encoder.hidden)
        pictures = torch.zeros(len(products), model.image_encoder.region_dim)
        has_text = torch.zeros(len(products), dtype=torch.bool)
        has_picture = torch.tensor([bool(p.pictures) for p in products], dtype=torch.bool)
        windows = {
            place: window
            for place, product in enumerate(products)
            if (window := self._window(product)) is not None
        }
        for places in self._groups(windows):
            batch = self._batch([windows[i] for i in places], [() for _ in places])
            has_text[places] = True
            with autocast(self.device, self.precision):
                texts[places] = model.text_features(batch).float().cpu()
        shown = has_picture.nonzero().flatten().tolist()
        for start in range(0, len(shown), self.max_rows):
            places = shown[start : start + self.max_rows]
            blank = [_NO_TEXT] * len(places)
            batch = self._batch(blank, [products[i].pictures for i in places])
            with autocast(self.device, self.precision):
                pictures[places] = model.picture_features(batch).float().cpu()
        return Vectors(texts, pictures, has_text, has_picture)

    @torch.inference_mode()
    def _project(self, features: Tensor, has_N: Tensor, *, is_text: bool) -> Tensor:
        project = self.model.project_texts if is_text else self.model.project_pictures
        return project(features.to(self.device)).cpu() * has_N[:, None]

    def _window(self, product: DecodedProduct) -> Window | None:
        try:
            return next(iter(self.text.encode(product.texts)), None)
        except TextError:
            return None

    def _groups(self, windows: dict[int, Window]) -> list[list[int]]:
        places = list(windows)
        lengths = [len(windows[place].piece_ids) for place in places]
        groups = length_batches(lengths, max_pieces=self.max_pieces, max_rows=self.max_rows)
        return [[places[i] for i in group] for group in groups]

    def _batch(self, windows: Sequence[Window], pictures: Sequence[tuple]) -> Batch:
        examples = [Example(w, p) for w, p in zip(windows, pictures, strict=True)]
        return collate(examples, picture_size=self.parts.config.image.size).to(self.device)


_NONE = np.zeros(0, dtype=np.int64)
_NO_TEXT = Window(_NONE, _NONE, _NONE, _NONE, _NONE, _NONE, 0, (0, 0))
