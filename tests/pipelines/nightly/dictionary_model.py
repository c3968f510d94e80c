"""A small deterministic model: values are words of a list, the picture's colour sets a score.

Some titles misbehave on purpose: POISON ends the process, RAISE raises.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.lake.storage import Storage
from pipelines.nightly.work.model import LoadedModel, ModelFacts
from ulsdram_core.image import ImageConfig
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import (
    AttributeScore,
    DecodedProduct,
    Evidence,
    Extraction,
    InferredValue,
    Status,
    Value,
)

WORDS = {
    "color": ("red", "blue", "green", "black"),
    "material": ("cotton", "leather", "wool"),
    "size": ("small", "large"),
}
MAX_CHARS = 100_000


@dataclass(frozen=True)
class DictionarySource:
    """The model source; `version` changes the model's id, `die_once` names a file that saves it."""

    version: str = "1"
    uses_pictures: bool = True
    put_in_place: str = ""  # the version that is found when the model is loaded
    loads: str = ""  # a file that gets a line whenever the model is loaded
    die_once: str = ""
    break_device: str = ""  # a file: the first process to call the model has a broken device
    infers: bool = False  # whether values are given that no text states
    cost: float = 0.0  # seconds of computing per product

    def facts(self, cache: Storage) -> ModelFacts:  # noqa: ARG002 - nothing to remember
        image = ImageConfig(size=16) if self.uses_pictures else None
        return ModelFacts(f"dictionary-{self.version}", ("title", "description"), image)

    def load(self) -> LoadedModel:
        if self.loads:
            with Path(self.loads).open("a") as file:
                file.write(f"{os.getpid()}\n")
        return DictionaryModel(self)


class DictionaryModel:
    def __init__(self, source: DictionarySource) -> None:
        self._source = source
        self._is_broken = False
        self.model_id = f"dictionary-{source.put_in_place or source.version}"

    def extract_decoded(self, products: Sequence[DecodedProduct]) -> list[Extraction]:
        if self._source.die_once and not Path(self._source.die_once).exists():
            Path(self._source.die_once).touch()
            os._exit(9)
        self._check_device()
        return [self._extract(product) for product in products]

    def _check_device(self) -> None:
        """As a CUDA context that an error has spoilt: whatever it is asked, it fails."""
        broken = Path(self._source.break_device)
        if self._source.break_device and not broken.exists():
            broken.touch()
            self._is_broken = True
        if self._is_broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def _extract(self, product: DecodedProduct) -> Extraction:
        until = time.process_time() + self._source.cost
        while time.process_time() < until:
            sum(range(1000))
        text = " ".join(product.texts.values())
        if "POISON" in text:
            os._exit(13)
        if "RAISE" in text:
            raise ZeroDivisionError("told to")
        if max((len(t) for t in product.texts.values()), default=0) > MAX_CHARS:
            return Extraction(product.product_id, Status.QUARANTINED, Reason.TEXT_TOO_LONG)
        if not text.strip():
            return Extraction(product.product_id, Status.QUARANTINED, Reason.EMPTY_TEXT)
        values = tuple(
            Value(attribute, found.group(), source, found.start(), found.end(), 0.9)
            for source, string in product.texts.items()
            for attribute, words in WORDS.items()
            for found in re.finditer("|".join(words), string)
        )
        score = sum(float(p.mean()) for p in product.pictures) / max(1, len(product.pictures))
        status = Status.OK if product.reason is None else Status.DEGRADED
        scores = (AttributeScore("color", score / 255),)
        inferred = _inferred(product, score / 255) if self._source.infers else ()
        return Extraction(product.product_id, status, product.reason, values, scores, inferred)


def _inferred(product: DecodedProduct, brightness: float) -> tuple[InferredValue, ...]:
    """The shade by the picture, if there is one; the season by the text, as a habit of words."""
    season = "Winter" if "wool" in " ".join(product.texts.values()) else "Summer"
    falls = False if product.pictures else None
    found = [InferredValue("season", season, 0.75, Evidence.TEXT, falls)]
    if product.pictures:
        shade = "bright" if brightness > 0.5 else "dark"
        sure = max(brightness, 1 - brightness)
        found.append(InferredValue("shade", shade, sure, Evidence.PICTURE, falls=True))
    return tuple(found)
