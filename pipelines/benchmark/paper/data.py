"""The products that every run trains on and is scored on, read, tokenised and decoded once."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from pipelines.benchmark.paper.pictures import (
    PictureStore,
    build_fixed_encoder,
    decode_store,
    encode_store,
    open_store,
)
from pipelines.benchmark.paper.plan import RunPlan
from pipelines.benchmark.paper.source import SPLITS, Source
from ulsdram_core.batch import Example
from ulsdram_core.encoders.image_encoder import ImageEncoder
from ulsdram_core.encoders.text_encoder import TextEncoderConfig
from ulsdram_core.encoders.tokenizer import build_tokenizer, load_tokenizer
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.image import ImageConfig
from ulsdram_core.labels import LabelSet
from ulsdram_core.schema import DecodedProduct, Product
from ulsdram_core.text import TextProcessor


@dataclass(frozen=True)
class _Placed:
    """A tokenised window and the number of the product it belongs to."""

    place: int
    example: Example


class BenchmarkData:
    """One process's view of the data; what is costly lies in `cache`, shared by all processes."""

    def __init__(self, source: Source, cache: Path) -> None:
        self.source = source
        self.cache = cache
        self._tokenizers: dict[str, PreTrainedTokenizerFast] = {}
        self._placed: dict[tuple[str, tuple[str, ...]], list[_Placed]] = {}
        self._stores: dict[Path, PictureStore] = {}
        self._encoders: dict[Path, ImageEncoder] = {}

    @cached_property
    def key(self) -> str:
        """Fingerprint of the products."""
        return self.source.key()

    @cached_property
    def splits(self) -> dict[str, list[Product]]:
        """Products without pictures, by split."""
        return {name: self.source.read(name, with_pictures=False) for name in SPLITS}

    @property
    def train(self) -> list[Product]:
        """Training products."""
        return self.splits["train"]

    @property
    def test(self) -> list[Product]:
        """Products that systems are scored on."""
        return self.splits["test"]

    @cached_property
    def category_attributes(self) -> Mapping[str, frozenset[str]]:
        """Attributes that training products of each category have; empty without categories."""
        seen: dict[str, set[str]] = {}
        for product in self.train:
            if product.category is not None:
                seen.setdefault(product.category, set()).update(product.gold_attributes())
        return {name: frozenset(attributes) for name, attributes in seen.items()}

    def labels(self, held_out: Sequence[str] = ()) -> LabelSet:
        """Return the attributes that training sees."""
        learned = without_attributes(self.train, held_out)
        return LabelSet.from_products(learned, min_count=self.source.config.settings.min_count)

    def tokenizer(self, encoder: TextEncoderConfig) -> PreTrainedTokenizerFast:
        """Return the encoder's tokenizer, or the one built from the training texts."""
        location = encoder.tokenizer_location()
        if (location or "") not in self._tokenizers:
            if location is not None:
                found = load_tokenizer(location)
            else:
                lines = [text for product in self.train for text in product.texts.values()]
                names = self.labels().attributes  # the BERT policy reads them
                words = [name.replace("_", " ") for name in names]
                size = self.source.config.settings.vocab_size
                found = build_tokenizer([*lines, *words], size)
            self._tokenizers[location or ""] = found
        return self._tokenizers[location or ""]

    def examples(
        self, plan: RunPlan, tokenizer: PreTrainedTokenizerFast, labels: LabelSet
    ) -> list[Example]:
        """Return the training examples of a run, tokenised once for all runs alike."""
        location = plan.extractor.model.text_encoder.tokenizer_location() or ""
        key = (location, plan.held_out)
        if key not in self._placed:
            builder = ExampleBuilder(TextProcessor(tokenizer, plan.extractor.text), labels, None)
            products = without_attributes(self.train, plan.held_out)
            self._placed[key] = [
                _Placed(place, example)
                for place, product in enumerate(products)
                for example in builder([product])
            ]
        store = self.store(plan, "train")
        if store is None:
            return [placed.example for placed in self._placed[key]]
        return [replace(p.example, pictures=store.of(p.place)) for p in self._placed[key]]

    def decoded_test(self, plan: RunPlan) -> list[DecodedProduct]:
        """Return the test products as the run's extractor takes them."""
        store = self.store(plan, "test")
        return [
            DecodedProduct(
                product.product_id,
                product.texts,
                () if store is None else store.of(place),
                product.category,
            )
            for place, product in enumerate(self.test)
        ]

    def store(self, plan: RunPlan, split: str) -> PictureStore | None:
        """Return the pictures that a run reads: none, pixels, or a fixed encoder's regions."""
        image, model = plan.extractor.image, plan.extractor.model
        if image is None or model.image_encoder is None:
            return None
        if not plan.has_fixed_pictures:
            return self._pixels(split, image)
        path = self._path("regions", split, image, model.image_encoder.model_dump(mode="json"))
        return self._stored(
            path,
            lambda: encode_store(path, self._pixels(split, image), self.fixed_encoder(plan)),
        )

    def fixed_encoder(self, plan: RunPlan) -> ImageEncoder:
        """Return the image encoder that a run with fixed pictures has, the same for all seeds."""
        image, config = plan.extractor.image, plan.extractor.model.image_encoder
        assert image is not None
        assert config is not None
        path = self._path("encoder", "", image, config.model_dump(mode="json"))
        if path not in self._encoders:
            self._encoders[path] = build_fixed_encoder(config, image.size)
        return self._encoders[path]

    def _pixels(self, split: str, image: ImageConfig) -> PictureStore:
        path = self._path("pixels", split, image, None)

        def decode() -> PictureStore:
            products = self.source.read(split, with_pictures=True)
            return decode_store(path, (product.pictures for product in products), image)

        return self._stored(path, decode)

    def _stored(self, path: Path, make: Callable[[], PictureStore]) -> PictureStore:
        if path not in self._stores:
            self._stores[path] = open_store(path) or make()
        return self._stores[path]

    def _path(self, kind: str, split: str, image: ImageConfig, encoder: object) -> Path:
        facts = json.dumps([self.key, image.model_dump(mode="json"), encoder], sort_keys=True)
        digest = hashlib.sha256(facts.encode()).hexdigest()[:12]
        return self.cache / f"{kind}-{split}-{digest}.npy"


def without_attributes(products: Sequence[Product], names: Sequence[str]) -> list[Product]:
    """Return the products as if nobody had annotated these attributes."""
    if not names:
        return list(products)
    hidden = set(names)
    return [
        replace(product, gold=tuple(g for g in product.gold or () if g.attribute not in hidden))
        for product in products
    ]


def highest_regions(store: PictureStore, place: int, most: int) -> np.ndarray | None:
    """Return the highest of a product's pictures' mean regions, [V]; None without pictures."""
    pictures = store.of(place)[:most]
    if not pictures:
        return None
    return np.max([picture.astype(np.float32).mean(0) for picture in pictures], axis=0)
