"""A model as pages show it: its name, its values, and where its words look in the pictures.

Axes: P pictures, h x w grid of regions.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.lake.storage import Storage
from ulsdram_core.extractor import Extractor
from ulsdram_core.heatmap import TextSpan, heatmaps
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.schema import DecodedProduct, Extraction, Product, Value
from ulsdram_core.text import product_units

_POLICIES = {
    "prototype": "PAR",
    "dynet": "dynamic range",
    "bert": "BERT range",
    "suopentag": "SUOpenTag",
}


@dataclass(frozen=True)
class WordMap:
    """Where one word looks in every picture; weights are scaled to 0..1 within each picture."""

    span: TextSpan
    weights: np.ndarray

    def to_json(self) -> dict[str, object]:
        """Return one byte per region, row by row, for the page."""
        levels = np.rint(self.weights * 255).astype(np.uint8)
        return {
            **self.span._asdict(),
            "grid": list(self.weights.shape[1:]),
            "weights": [base64.b64encode(level.tobytes()).decode() for level in levels],
        }


@dataclass(frozen=True)
class ModelView:
    """One loaded model under the name that the page gives it."""

    name: str
    extractor: Extractor

    @classmethod
    def load(cls, place: Storage) -> "ModelView":
        """Open a model directory; the name says which of the paper's systems it is."""
        if not place.is_folder():
            raise ValueError(f"found no folder at {place.uri}, expected a model directory")
        with place.local_copy() as folder:
            extractor = Extractor.load(folder)
        return cls(system_name(extractor.config.model), extractor)

    @property
    def model_id(self) -> str:
        """Fingerprint of the model."""
        return self.extractor.model_id

    @property
    def sees_pictures(self) -> bool:
        """Whether there are heatmaps at all."""
        return self.extractor.config.image is not None

    def extract(self, products: Sequence[Product]) -> list[Extraction]:
        """Return one extraction per product, in order."""
        return self.extractor.extract(products)

    def words(self, product: Product) -> list[TextSpan]:
        """Return every word (or character) that the model reads of the product."""
        windows = self.extractor.text.encode(product.texts)
        names = self.extractor.config.text.sources
        columns = (column.tolist() for column in product_units(windows))
        return [TextSpan(names[s], start, end) for s, start, end in zip(*columns, strict=True)]

    def value_words(self, product: Product, values: Sequence[Value]) -> list[TextSpan]:
        """Return the words that the product's values are made of."""
        inside = {(v.source, v.start, v.end) for v in values}
        return [
            word
            for word in self.words(product)
            if any(s == word.source and a < word.end and word.start < b for s, a, b in inside)
        ]

    def maps(self, product: Product, words: Sequence[TextSpan]) -> list[WordMap]:
        """Return the heatmaps of words; [] where there is no usable picture or no such words."""
        if not self.sees_pictures or not words:
            return []
        decoded: DecodedProduct = self.extractor.decode(product)
        if not decoded.pictures:
            return []
        found = heatmaps(self.extractor, decoded, words)
        return [WordMap(item.span, scaled(item.weights_Phw)) for item in found]


def scaled(weights: np.ndarray) -> np.ndarray:
    """Return every picture's weights stretched to 0..1; equal weights become 0."""
    low = weights.min((1, 2), keepdims=True)
    spread = weights.max((1, 2), keepdims=True) - low
    return np.where(spread > 0, (weights - low) / np.where(spread > 0, spread, 1), 0.0)


def system_name(config: ModelConfig) -> str:
    """Return the paper's name of a combination of parts, else the parts."""
    fusion, policy = config.fusion.kind, config.policy.kind
    if (fusion, policy) == ("tir", "prototype"):
        return "ULS-DRAM"
    name = "ULS-L" if fusion == "none" else "ULS-VL"
    if fusion == "tir":
        name += " + TIR"
    elif fusion in ("self_attention", "gated"):
        name += f" ({fusion.replace('_', '-')})"
    return name if policy == "none" else f"{name} + {_POLICIES[policy]}"
