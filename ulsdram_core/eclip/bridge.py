"""From e-CLIP to ULS-DRAM: an extractor that starts with pre-trained encoders."""

from torch import nn

from ulsdram_core.eclip.parts import EclipParts
from ulsdram_core.errors import CheckpointError
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, ModelParts, assemble


def assemble_from_eclip(config: ExtractorConfig, labels: LabelSet, eclip: EclipParts) -> ModelParts:
    """Build an extractor whose encoders and tokenizer are those of an e-CLIP model.

    The config's own choice of encoders gives way, its switches (batch norms, checkpointing) stay.
    A text-only config takes the text encoder alone.
    """
    source = eclip.config.model
    ours = config.model
    text = source.text_encoder.model_copy(
        update={
            "dropout": ours.text_encoder.dropout,
            "gradient_checkpointing": ours.text_encoder.gradient_checkpointing,
            "attention": ours.text_encoder.attention,
        }
    )
    image = None
    if ours.image_encoder is not None:
        switches = ("freeze_batch_norm", "channels_last", "gradient_checkpointing")
        chosen = {name: getattr(ours.image_encoder, name) for name in switches}
        image = source.image_encoder.model_copy(update=chosen)
    model = ours.model_copy(update={"text_encoder": text, "image_encoder": image})
    # Nothing pretrained is looked up: every weight of the encoders comes from the e-CLIP model.
    parts = assemble(
        config.model_copy(update={"model": model}), labels, eclip.tokenizer, random_init=True
    )
    _copy(eclip.model.text_encoder, parts.model.text_encoder, "text")
    if parts.model.image_encoder is not None:
        _copy(eclip.model.image_encoder, parts.model.image_encoder, "image")
    return parts


def _copy(source: nn.Module, target: nn.Module, name: str) -> None:
    try:
        target.load_state_dict(source.state_dict())
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"the {name} encoder of the e-CLIP model does not fit the recipe: {line}; use the "
            "picture size and encoder settings that it was trained with"
        ) from error
