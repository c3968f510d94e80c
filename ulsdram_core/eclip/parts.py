"""What an e-CLIP model is made of, and its directory: safetensors and JSON, never a pickle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from transformers import PreTrainedTokenizerFast

from ulsdram_core.checkpoint import (
    CARD,
    CONFIG,
    METRICS,
    RECIPE,
    Contents,
    check_folder,
    fill_parts,
    fitting_parts,
    read_document,
    read_field,
    read_tokenizer,
    write_folder,
)
from ulsdram_core.eclip.dual_encoder import DualEncoder, DualEncoderConfig
from ulsdram_core.errors import CheckpointError
from ulsdram_core.frozen import Frozen
from ulsdram_core.image import ImageConfig
from ulsdram_core.parts import Notes, fingerprint, settle_encoder
from ulsdram_core.text import TextConfig

KIND: Literal["eclip"] = "eclip"


class EclipConfig(Frozen):
    """Everything that decides a model's embeddings besides its weights and its tokenizer."""

    format_version: Literal[1] = Field(1, description="layout of the model directory")
    kind: Literal["eclip"] = Field(KIND, description="tells this directory from an extractor's")
    model: DualEncoderConfig = Field(description="the two encoders")
    text: TextConfig = Field(default_factory=TextConfig, description="how texts are read")
    image: ImageConfig = Field(default_factory=ImageConfig, description="how pictures are read")
    is_aligned: bool = Field(
        False, description="whether the heads were trained; if not, only features mean something"
    )


@dataclass
class EclipParts(Notes):
    """A dual encoder with what it needs to read products."""

    config: EclipConfig
    model: DualEncoder
    tokenizer: PreTrainedTokenizerFast

    def model_id(self) -> str:
        """Return the fingerprint of weights, tokenizer and preprocessing."""
        return fingerprint(self.model, self.tokenizer, self.config)


def assemble_eclip(
    config: EclipConfig, tokenizer: PreTrainedTokenizerFast, *, random_init: bool = False
) -> EclipParts:
    """Build a model; its config then carries the text encoder's architecture."""
    model = config.model.build(
        len(tokenizer), picture_size=config.image.size, random_init=random_init
    )
    text_encoder = settle_encoder(config.model.text_encoder, model.text_encoder, config.text)
    resolved = config.model.model_copy(update={"text_encoder": text_encoder})
    return EclipParts(config.model_copy(update={"model": resolved}), model, tokenizer)


def save_eclip(parts: EclipParts, path: str | Path) -> Path:
    """Write a model directory; an existing one is replaced only once the new one is whole."""
    documents = {CONFIG: parts.config.model_dump(mode="json"), METRICS: parts.metrics}
    texts = {RECIPE: parts.recipe, CARD: parts.card}
    return write_folder(Path(path), Contents(parts.model, parts.tokenizer, documents, texts))


def load_eclip(path: str | Path) -> EclipParts:
    """Read a model directory; nothing in it is ever executed."""
    folder = Path(path)
    check_folder(folder)
    config = read_eclip_config(folder)
    tokenizer = read_tokenizer(folder)
    with fitting_parts(folder):
        parts = assemble_eclip(config, tokenizer, random_init=True)
    fill_parts(parts, parts.model, folder)
    return parts


def read_eclip_config(folder: Path) -> EclipConfig:
    """Return the config of a model directory, without its weights."""
    path = folder / CONFIG
    if read_field(path, "kind") != KIND:
        raise CheckpointError(
            f"{folder} is no e-CLIP model, expected one made by jobs/pretrain_eclip.py"
        )
    return read_document(EclipConfig, path)
