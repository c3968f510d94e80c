"""A model directory (DESIGN: model directory) as the nightly job's model."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.lake.digests import digest
from pipelines.lake.documents import read_json, write_json
from pipelines.lake.storage import Storage, file_version
from pipelines.nightly.work.model import LoadedModel, ModelFacts
from ulsdram_core.extractor import Extractor
from ulsdram_core.image import ImageConfig
from ulsdram_core.parts import MODEL_ID_VERSION
from ulsdram_core.precision import PrecisionChoice
from ulsdram_core.process import tune_process

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model directory anywhere. `num_threads`: torch threads per worker, 0: torch's choice."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    precision: PrecisionChoice = "auto"
    num_threads: int = 0

    def facts(self, cache: Storage) -> ModelFacts:
        """Read them from the cache if these very files were loaded before, else load them."""
        before = self._fingerprint()
        remembered = cache.join(f"{before}.json")
        found = read_json(remembered)
        if found is None:
            found = self._describe()
            if self._fingerprint() != before:
                raise ValueError(
                    f"{self.uri} changed while it was read, expected a model that stays; wait "
                    "until it is written, then run again"
                )
            write_json(remembered, found)
        image = found["image"]
        return ModelFacts(
            model_id=found["model_id"],
            sources=tuple(found["sources"]),
            image=None if image is None else ImageConfig(**image),
            vectors=tuple(found.get("vectors", ())),
        )

    def load(self) -> LoadedModel:
        """Return the extractor on the best device that this process has."""
        tune_process(self.num_threads)
        return self._extractor()

    def _extractor(self) -> Extractor:
        with Storage.of(self.uri, self.options).local_copy() as folder:
            _log.info("loading model %s", self.uri)
            return Extractor.load(folder, precision=self.precision)

    def _describe(self) -> dict[str, Any]:
        extractor = self._extractor()
        image = extractor.config.image
        return {
            "model_id": extractor.model_id,
            "sources": list(extractor.config.text.sources),
            "image": None if image is None else image.model_dump(mode="json"),
        }

    def _fingerprint(self) -> str:
        """Hash names, sizes and versions of the files: costs a listing and loads nothing."""
        place = Storage.of(self.uri, self.options)
        if not place.is_folder():
            raise ValueError(f"found no folder at {place.uri}, expected a model directory")
        parts = (
            f"{path} {info['size']} {file_version(info)}" for path, info in place.files().items()
        )
        return digest([f"{MODEL_ID_VERSION}".encode(), *(part.encode() for part in parts)]).hex()
