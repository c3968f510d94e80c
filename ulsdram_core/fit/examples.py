"""Labelled products as training examples: windows, pixels, gold on units."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from ulsdram_core.batch import Example
from ulsdram_core.image import ImageConfig, decode_usable
from ulsdram_core.labels import LabelSet, align_gold
from ulsdram_core.schema import Product
from ulsdram_core.text import TextError, TextProcessor


class ExampleBuilder:
    """Turns labelled products into examples and counts what could not be used."""

    def __init__(self, text: TextProcessor, labels: LabelSet, image: ImageConfig | None) -> None:
        self.text = text
        self.labels = labels
        self.image = image
        self.counts: Counter[str] = Counter()
        """Reasons and label losses, by name."""

    def __call__(self, products: Iterable[Product]) -> Iterator[Example]:
        """Yield one example per window."""
        for product in products:
            self.counts["products"] += 1
            yield from self._examples(product)

    def _examples(self, product: Product) -> Iterator[Example]:
        if product.gold is None:
            raise ValueError(
                f"product {product.product_id!r} has no gold, expected labelled products; "
                "run jobs/prepare.py"
            )
        try:
            windows = self.text.encode(product.texts)
        except TextError as error:
            self.counts[error.reason.value] += 1
            return
        if not windows:
            self.counts["empty_text"] += 1
            return
        gold = align_gold(windows, product.gold, self.labels, self.text.config.sources)
        self.counts["spans_snapped"] += gold.num_snapped
        self.counts["spans_unknown_attribute"] += gold.num_unknown
        self.counts["spans_outside"] += gold.num_outside
        self.counts["spans_overlapping"] += gold.num_overlapping
        pictures: list[np.ndarray] = []
        if self.image is not None:
            pictures, unusable = decode_usable(product.pictures, self.image)
            self.counts.update(reason.value for reason in unusable)
        for window in windows:
            yield Example(window, tuple(pictures), gold.seen_by(window))
