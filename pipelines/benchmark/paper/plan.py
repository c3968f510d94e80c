"""What one run is: a system's parts and training, resolved from the benchmark recipe."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.benchmark.paper.settings import BenchmarkConfig, Sections, SystemConfig
from pipelines.command.recipes import checked
from ulsdram_core.baselines.kplug import KplugConfig
from ulsdram_core.baselines.value_ranker import RankerConfig
from ulsdram_core.encoders.text_encoder import TextEncoderConfig
from ulsdram_core.fit.fitting import FitConfig
from ulsdram_core.image import ImageConfig
from ulsdram_core.parts import ExtractorConfig

# Raised when the meaning of a stored result changes; older ones are then run again.
RESULT_VERSION = 1


@dataclass(frozen=True)
class RunPlan:
    """One system with one seed, complete; picklable."""

    system: str
    label: str
    kind: str
    seed: int
    extractor: ExtractorConfig
    fit: FitConfig
    sweep: bool = False
    kplug: KplugConfig | None = None
    ranker: RankerConfig | None = None
    held_out: tuple[str, ...] = ()
    """Attributes whose gold training does not see (zero-shot)."""

    def document(self) -> dict[str, Any]:
        """Return everything that decides the result, besides the data."""
        return {
            "version": RESULT_VERSION,
            "kind": self.kind,
            "seed": self.seed,
            "extractor": self.extractor.model_dump(mode="json"),
            "fit": self.fit.model_dump(mode="json"),
            "sweep": self.sweep,
            "kplug": self.kplug.model_dump(mode="json") if self.kplug else None,
            "ranker": self.ranker.model_dump(mode="json") if self.ranker else None,
            "held_out": sorted(self.held_out),
        }

    def fingerprint(self, data_key: str) -> str:
        """Return the name of this run's result on this data; the system's name is no part."""
        text = json.dumps({"data": data_key, **self.document()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def has_fixed_pictures(self) -> bool:
        """Whether its picture features can be computed once for all runs."""
        model = self.extractor.model
        return model.image_encoder is not None and (self.kind == "ranker" or not model.unified)


def plan_run(
    config: BenchmarkConfig, name: str, *, seed: int, held_out: Sequence[str] = ()
) -> RunPlan:
    """Resolve one system of the recipe."""
    if name not in config.systems:
        raise ValueError(f"found no system {name!r}, expected one of {sorted(config.systems)}")
    system = config.systems[name]
    text_encoder = _text_encoder(config, system.text)
    model: dict[str, Any] = {
        "text_encoder": text_encoder,
        "head": "none",
        "policy": {"kind": "none"},
        "fusion": {"kind": "none"},
    }
    if system.pictures:
        model["image_encoder"] = config.settings.image_encoder
        kind = "tir" if system.kind == "ranker" else "none"
        model["fusion"] = {"kind": kind, **config.fusion}
    limits: dict[str, Any] = {"threshold": config.settings.threshold}
    for layer in _layers(config, system):
        model, limits = merged(model, layer.model), merged(limits, layer.range)
    sections = {
        "model": model,
        "text": config.text,
        "image": ImageConfig(size=config.settings.picture_size) if system.pictures else None,
        "range": limits,
    }
    return RunPlan(
        system=name,
        label=system.label,
        kind=system.kind,
        seed=seed,
        extractor=checked(ExtractorConfig, sections, of=f"system {name}"),
        fit=_fit(config, name, text_encoder, seed),
        sweep=system.sweep,
        kplug=config.kplug if system.kind == "kplug" else None,
        ranker=config.ranker.model_copy(update={"seed": seed}) if system.kind == "ranker" else None,
        held_out=tuple(held_out),
    )


def _layers(config: BenchmarkConfig, system: SystemConfig) -> list[Sections]:
    """Return what is laid over the shared settings, the system's own entry last."""
    uses_tir = system.model.get("fusion", {}).get("kind") == "tir"
    layers: list[Sections] = [config.tir] if uses_tir else []
    return [*layers, *([config.aligned] if system.aligned else []), system]


def _text_encoder(config: BenchmarkConfig, which: str) -> TextEncoderConfig:
    settings = config.settings
    if which == "second":
        return settings.second_text_encoder
    if which == "words" and settings.text_encoder.is_pretrained:
        return settings.words.model_copy(update={"vectors": settings.text_encoder.name})
    return settings.words if which == "words" else settings.text_encoder


def _fit(
    config: BenchmarkConfig, name: str, text_encoder: TextEncoderConfig, seed: int
) -> FitConfig:
    settings, system, rates = config.settings, config.systems[name], config.rates
    text = rates.pretrained if text_encoder.is_pretrained else rates.scratch
    image = rates.scratch if settings.image_encoder.weights == "none" else rates.pretrained
    document: dict[str, Any] = {
        "epochs": settings.epochs * system.epoch_factor,
        "batch_size": settings.batch_size,
        "picture_dropout": settings.picture_dropout,
        "seed": seed,
        "optim": {**config.optim, "text_rate": text.text, "image_rate": image.image},
    }
    for layer in _layers(config, system):
        document = merged(document, layer.fit)
    return checked(FitConfig, document, of=f"system {name}: fit")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, section by section."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
