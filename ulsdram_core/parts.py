"""What an extractor is made of: config, model, labels, tokenizer."""

import hashlib
import json
from dataclasses import dataclass, field

from pydantic import BaseModel, Field, model_validator
from torch import nn
from transformers import PreTrainedTokenizerFast

from ulsdram_core.encoders.recurrent_encoder import RecurrentEncoder
from ulsdram_core.encoders.text_encoder import TextEncoder, TextEncoderConfig
from ulsdram_core.encoders.weights import hash_state
from ulsdram_core.errors import LabelError
from ulsdram_core.frozen import Frozen
from ulsdram_core.image import ImageConfig
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.model import ModelConfig, UlsDram
from ulsdram_core.pairs import RangeConfig
from ulsdram_core.text import TextConfig

FORMAT_VERSION = 1
MODEL_ID_VERSION = 2
"""Of what `model_id` hashes; it belongs into the key of whatever remembers a model's id."""
OFF = 1.0
"""A value threshold that no confidence passes, though some round to exactly 1."""


class Thresholds(Frozen):
    """What a score must exceed; set by calibration on validation data."""

    attribute: dict[str, float] = Field(
        default_factory=dict, description="S_thr of single attributes; others take the range's"
    )
    value: dict[str, float] = Field(
        default_factory=dict,
        description="lowest confidence of a value, by attribute; 1 extracts none of its values",
    )

    def keeps(self, attribute: str, confidence: float) -> bool:
        """Return whether a value found with this confidence is extracted."""
        lowest = self.value.get(attribute, 0.0)
        return lowest < OFF and confidence >= lowest

    @model_validator(mode="after")
    def _are_probabilities(self) -> "Thresholds":
        for kind in (self.attribute, self.value):
            for name, limit in kind.items():
                if not 0 <= limit <= 1:
                    raise ValueError(f"threshold of {name!r} is {limit}, expected 0 to 1")
        return self


class ExtractorConfig(Frozen):
    """Everything that decides a model's answers besides its weights, labels and tokenizer."""

    format_version: int = Field(FORMAT_VERSION, description="layout of the model directory")
    model: ModelConfig = Field(description="the parts of the model")
    text: TextConfig = Field(default_factory=TextConfig, description="how texts are read")
    image: ImageConfig | None = Field(None, description="how pictures are read; null: not at all")
    range: RangeConfig = Field(default_factory=RangeConfig, description="the attribute range")
    thresholds: Thresholds = Field(default_factory=Thresholds, description="calibrated limits")
    scope_to_category: bool = Field(
        False, description="keep only attributes seen with the product's category"
    )
    merge_repeats: bool = Field(
        False, description="keep one mention of a value that a text repeats"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> "ExtractorConfig":
        if (self.image is None) != (self.model.image_encoder is None):
            raise ValueError(
                f"image is {'null' if self.image is None else 'set'} and model.image_encoder "
                f"{'null' if self.model.image_encoder is None else 'set'}, expected both or neither"
            )
        return self


@dataclass(kw_only=True)
class Notes:
    """What is noted about a model of any kind."""

    metrics: dict[str, object] = field(default_factory=dict)
    recipe: str = ""
    card: str = ""


@dataclass
class ModelParts(Notes):
    """A model with what it needs to read products and name its answers."""

    config: ExtractorConfig
    model: UlsDram
    labels: LabelSet
    tokenizer: PreTrainedTokenizerFast

    def model_id(self) -> str:
        """Return the fingerprint of weights, labels, thresholds and preprocessing."""
        return fingerprint(self.model, self.tokenizer, self.config, self.labels)


def fingerprint(model: nn.Module, tokenizer: PreTrainedTokenizerFast, *documents: BaseModel) -> str:
    """Return what names a model: its documents, its tokenizer and its weights."""
    digest = hashlib.sha256(f"{MODEL_ID_VERSION}".encode())
    for document in documents:
        digest.update(canonical(document))
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    hash_state(digest, model.state_dict())
    return digest.hexdigest()[:16]


def canonical(document: BaseModel) -> bytes:
    """Return what a document says besides its defaults, so that new fields leave it as it was.

    A default, once released, has to stay: another one would change the id of known models.
    """
    said = document.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(said, sort_keys=True, ensure_ascii=False).encode()


def assemble(
    config: ExtractorConfig,
    labels: LabelSet,
    tokenizer: PreTrainedTokenizerFast,
    *,
    random_init: bool = False,
) -> ModelParts:
    """Build a model for these labels; `random_init` ignores every pretrained weight.

    The returned config carries the text encoder's architecture, so that the model can be loaded
    where its checkpoint is not.
    """
    _check_labels(config, labels)
    model = config.model.build(
        len(labels),
        len(tokenizer),
        picture_size=config.image.size if config.image else 224,
        random_init=random_init,
    )
    text_encoder = settle_encoder(config.model.text_encoder, model.text_encoder, config.text)
    resolved = config.model.model_copy(update={"text_encoder": text_encoder})
    _name_attributes(model, labels, tokenizer)
    return ModelParts(config.model_copy(update={"model": resolved}), model, labels, tokenizer)


def settle_encoder(
    config: TextEncoderConfig, encoder: TextEncoder | RecurrentEncoder, text: TextConfig
) -> TextEncoderConfig:
    """Return the config with the built encoder's architecture; refuse windows it cannot take."""
    if text.max_pieces > encoder.max_pieces:
        raise ValueError(
            f"text.max_pieces is {text.max_pieces}, expected at most {encoder.max_pieces}, the "
            f"longest sequence that text encoder {config.name!r} has positions for; "
            "lower text.max_pieces"
        )
    return config.resolved(encoder)


def asked_for(parts: ModelParts, attributes: tuple[str, ...]) -> ModelParts:
    """Return the model with other attributes, known by name only: each one is asked for.

    For policies that read names (bert, suopentag); the head, which knows the trained attributes
    alone, is left out. The model may never have seen a value of these attributes (zero-shot).
    """
    config = parts.config.model
    if not config.policy.reads_names:
        raise LabelError(
            f"policy.kind is {config.policy.kind!r}, expected bert or suopentag: others know "
            "their attributes by number; train such a model to ask for new ones"
        )
    headless = config.model_copy(update={"head": "none"})
    limits = parts.config.range.model_copy(update={"max_attributes": len(attributes)})
    asked = assemble(
        parts.config.model_copy(
            update={"model": headless, "range": limits, "thresholds": Thresholds()}
        ),
        LabelSet(attributes=attributes),
        parts.tokenizer,
        random_init=True,
    )
    state = parts.model.state_dict()
    asked.model.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    asked.model.eval()
    return asked


def _check_labels(config: ExtractorConfig, labels: LabelSet) -> None:
    named = {*config.thresholds.attribute, *config.thresholds.value}
    if unknown := sorted(named - set(labels.attributes)):
        raise LabelError(
            f"thresholds name {unknown[0]!r}, which is not among the {len(labels)} labels; "
            "calibrate again or correct the name"
        )
    if config.scope_to_category and labels.category_attributes is None:
        raise LabelError(
            "scope_to_category is set, but the labels do not tell categories apart; collect them "
            "from products with a category, or unset it"
        )


def _name_attributes(model: UlsDram, labels: LabelSet, tokenizer: PreTrainedTokenizerFast) -> None:
    words = [name.replace("_", " ") for name in labels.attributes]
    encoded = tokenizer(words, padding=True, truncation=True, max_length=32, return_tensors="pt")
    model.name_attributes(encoded["input_ids"], encoded["attention_mask"].bool())
