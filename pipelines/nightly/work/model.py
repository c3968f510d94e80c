"""The seam to the model: what the nightly job needs of one.

A `ModelSource` travels to the workers; only model workers call `load`. `model_folder.py` holds the
implementation for model directories, kept apart so that decode workers import no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipelines.lake.storage import Storage
from ulsdram_core.image import ImageConfig
from ulsdram_core.schema import DecodedProduct, Extraction


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What planning and decoding must know of a model. `image` None: it looks at no pictures."""

    model_id: str
    sources: tuple[str, ...]
    image: ImageConfig | None
    vectors: tuple[str, ...] = ()
    """Columns of vectors that the model fills, as attributes of its extractions."""


class LoadedModel(Protocol):
    """A model in this process."""

    @property
    def model_id(self) -> str:
        """Fingerprint of what was loaded."""

    def extract_decoded(self, products: Sequence[DecodedProduct]) -> list[Extraction]:
        """Return one extraction per product, in order."""


class ModelSource(Protocol):
    """Where a model comes from; small and picklable."""

    def facts(self, cache: Storage) -> ModelFacts:
        """Return what planning needs; the folder `cache` remembers it: nothing is loaded."""

    def load(self) -> LoadedModel:
        """Return the model on this process's device."""
