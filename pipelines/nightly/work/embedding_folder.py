"""An e-CLIP model as the nightly job's model: rows get vectors instead of values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.lake.storage import Storage
from pipelines.lake.tables import VECTORS
from pipelines.nightly.work.model import LoadedModel
from pipelines.nightly.work.model_folder import ModelFolder
from ulsdram_core.eclip.embedder import Embedder, Vectors
from ulsdram_core.process import tune_process
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import DecodedProduct, Extraction, Status


@dataclass(frozen=True, slots=True)
class Embedded(Extraction):
    """What one product yields: unit vectors; None where its text or picture cannot be used."""

    text_vector: np.ndarray | None = None
    picture_vector: np.ndarray | None = None
    joint_vector: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class EclipFolder(ModelFolder):
    """An e-CLIP model directory anywhere."""

    def load(self) -> LoadedModel:
        """Return the embedder on the best device that this process has."""
        tune_process(self.num_threads)
        return _LoadedEclip(self._embedder())

    def _embedder(self) -> Embedder:
        with Storage.of(self.uri, self.options).local_copy() as folder:
            embedder = Embedder.load(folder, precision=self.precision)
        if not embedder.parts.config.is_aligned:
            raise ValueError(f"the heads of {self.uri} were never trained; pre-train it first")
        return embedder

    def _describe(self) -> dict[str, Any]:
        embedder = self._embedder()
        config = embedder.parts.config
        return {
            "model_id": embedder.parts.model_id(),
            "sources": list(config.text.sources),
            "image": config.image.model_dump(mode="json"),
            "vectors": list(VECTORS),
        }


class _LoadedEclip:
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.model_id = embedder.parts.model_id()

    def extract_decoded(self, products: Sequence[DecodedProduct]) -> list[Extraction]:
        vectors = self._embedder.embed(products)
        return [_embedded(product, vectors, place) for place, product in enumerate(products)]


def _embedded(product: DecodedProduct, vectors: Vectors, place: int) -> Extraction:
    has_text, has_picture = bool(vectors.has_text_N[place]), bool(vectors.has_picture_N[place])
    if not has_text and not has_picture:
        return Extraction(
            product.product_id, Status.QUARANTINED, product.reason or Reason.EMPTY_TEXT
        )
    reason = product.reason or (None if has_text else Reason.EMPTY_TEXT)
    return Embedded(
        product.product_id,
        Status.OK if reason is None else Status.DEGRADED,
        reason,
        text_vector=vectors.text[place].numpy() if has_text else None,
        picture_vector=vectors.picture[place].numpy() if has_picture else None,
        joint_vector=vectors.joint()[place].numpy(),
    )
