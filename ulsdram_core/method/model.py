"""The model, assembled from interchangeable parts; a variant is a config, never a subclass.

Axes: B windows, L pieces, S sequence, U units, C attributes, N pairs, T tags, H hidden,
K distinct pictures, M (picture, window) links, R regions, V region features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ulsdram_core.batch import Batch
from ulsdram_core.encoders.image_encoder import ImageEncoder, ImageEncoderConfig
from ulsdram_core.encoders.recurrent_encoder import RecurrentEncoder
from ulsdram_core.encoders.text_encoder import TextEncoder, TextEncoderConfig
from ulsdram_core.frozen import Frozen
from ulsdram_core.method.attribute_head import HeadKind, build_head
from ulsdram_core.method.fusion import FusionConfig
from ulsdram_core.method.jave import ReaderConfig
from ulsdram_core.method.range_policy import BertPolicy, PairFeatures, RangePolicyConfig
from ulsdram_core.method.regions import PictureRegions
from ulsdram_core.method.tagger import TaggerConfig
from ulsdram_core.pairs import Pairs

# Pictures encoded at once when extracting: a batch of products may show any number of them.
MAX_PICTURES = 64


class ModelConfig(Frozen):
    """The parts of a model."""

    text_encoder: TextEncoderConfig = Field(
        default_factory=TextEncoderConfig, description="the text encoder"
    )
    image_encoder: ImageEncoderConfig | None = Field(
        None, description="the image encoder; null for a text-only model (ULS-L)"
    )
    fusion: FusionConfig = Field(
        default_factory=lambda: FusionConfig(kind="none"), description="how pictures meet text"
    )
    reader: ReaderConfig = Field(
        default_factory=ReaderConfig, description="what stands between encoder and tagger"
    )
    head: HeadKind = Field(
        "released", description="attribute head: none, paper, linear (with a bias) or released"
    )
    policy: RangePolicyConfig = Field(
        default_factory=RangePolicyConfig, description="what guides the tagging of an attribute"
    )
    tagger: TaggerConfig = Field(default_factory=TaggerConfig, description="feature decoder")
    unified: bool = Field(True, description="fine-tune both encoders (ULS); false keeps them fixed")

    @model_validator(mode="after")
    def _parts_fit(self) -> "ModelConfig":
        policy, head, reader = self.policy, self.head, self.reader.kind
        if policy.kind != "none" and head == "none" and not policy.reads_names:
            raise ValueError(
                f"policy.kind is {policy.kind!r} with head 'none', expected head 'paper' or "
                "'released': a policy needs the range that the head predicts"
            )
        if reader == "jave" and (head == "none" or policy.kind != "none"):
            raise ValueError(
                f"reader.kind is 'jave' with head {head!r} and policy {policy.kind!r}, expected a "
                "head and no policy: its tags read the attribute scores"
            )
        if reader != "none" and head == "released":
            raise ValueError(
                f"reader.kind is {reader!r} with head 'released', expected head 'paper' or "
                "'linear': that reader gives the head one vector, not two layers' [CLS]"
            )
        self._pictures_fit()
        return self

    def _pictures_fit(self) -> None:
        sees, has = self.fusion.kind != "none", self.image_encoder is not None
        if sees != has and not (has and self.reader.kind == "jave"):
            raise ValueError(
                f"fusion.kind is {self.fusion.kind!r} with image_encoder "
                f"{'set' if has else 'null'}, expected both or neither"
            )
        if self.fusion.kind in ("concat", "self_attention") and self.text_encoder.name == "bilstm":
            raise ValueError(
                f"fusion.kind is {self.fusion.kind!r} with text encoder 'bilstm', expected an "
                "encoder with attention: a BiLSTM cannot read regions as pieces"
            )

    def build(
        self,
        num_attributes: int,
        vocab_size: int,
        *,
        picture_size: int = 224,
        random_init: bool = False,
    ) -> "UlsDram":
        """Build the model for pictures of `picture_size` pixels a side.

        `random_init` ignores every pretrained weight (works offline).
        """
        text_encoder = self.text_encoder.build_any(vocab_size, random_init=random_init)
        image_encoder = None
        if self.image_encoder is not None:
            image_encoder = self.image_encoder.build(size=picture_size, random_init=random_init)
        return UlsDram(self, num_attributes, text_encoder, image_encoder)


@dataclass(frozen=True)
class Encoded:
    """A batch after the encoders: everything that does not depend on the range."""

    units_BUH: Tensor
    unit_mask_BU: Tensor
    logits_BC: Tensor | None
    embedded_BLH: Tensor
    """The text before the encoder's first layer, where TIR meets the pictures."""
    pictures: PictureRegions


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass returns, in training as in extraction."""

    logits_BC: Tensor | None
    """Attribute scores before the sigmoid; None without a head."""
    pairs: Pairs | None
    """What the rows of `emissions_NUT` are; None: row i is window i (no policy)."""
    emissions_NUT: Tensor
    mask_NU: Tensor
    embedded_BLH: Tensor | None = None
    """The text before the encoder, and what the pictures show: for the alignment loss."""
    pictures: PictureRegions | None = None


# Chooses the pairs to tag from the attribute logits.
PairChooser = Callable[[Tensor], Pairs]


class UlsDram(nn.Module):
    """ULS-DRAM and, by leaving parts out, the systems that the paper compares it with."""

    def __init__(
        self,
        config: ModelConfig,
        num_attributes: int,
        text_encoder: TextEncoder | RecurrentEncoder,
        image_encoder: ImageEncoder | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_attributes = num_attributes
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        hidden = self.text_encoder.hidden
        region_dim = self.image_encoder.region_dim if self.image_encoder else 0
        self.region_norm = (
            nn.LayerNorm(region_dim)
            if config.fusion.normalize_regions and region_dim
            else nn.Identity()
        )
        self.fusion = config.fusion.build(hidden, region_dim)
        self.reader = config.reader.build(hidden, region_dim, num_attributes)
        self.head = build_head(config.head, self.reader.sentence_width, num_attributes)
        width = self.reader.width
        self.policy = config.policy.build(num_attributes, width)
        guided = self.policy is not None
        self.tagger = config.tagger.build(
            2 * width if guided else width, 3 if guided else 2 * num_attributes + 1
        )
        self._names: tuple[Tensor, Tensor] | None = None
        if not config.unified:
            self._fix_encoders()

    def _fix_encoders(self) -> None:
        for encoder in (self.text_encoder, self.image_encoder):
            # A BiLSTM has no upstream knowledge to keep: only its embeddings may be pretrained.
            if encoder is not None and not isinstance(encoder, RecurrentEncoder):
                encoder.requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> "UlsDram":
        """Switch to training; fixed encoders stay as they are in extraction."""
        super().train(mode)
        if not self.config.unified:
            self._fix_encoders()
        return self

    def name_attributes(self, piece_ids_CL: Tensor, mask_CL: Tensor) -> None:
        """Give the attributes' names, tokenised, to the BERT policy."""
        self._names = (piece_ids_CL, mask_CL)

    def forward(self, batch: Batch, choose: PairChooser) -> ModelOutput:
        """Encode the batch, let `choose` pick the pairs, and score their tags."""
        encoded = self.encode(batch)
        if self.policy is None:
            return self._tag(encoded, None)
        logits_BC = encoded.logits_BC
        if logits_BC is None:  # attributes are given, not predicted: each one is certain
            shape = (len(encoded.units_BUH), self.num_attributes)
            logits_BC = encoded.units_BUH.new_full(shape, float("inf"), dtype=torch.float32)
        return self._tag(encoded, choose(logits_BC))

    def encode(self, batch: Batch) -> Encoded:
        """Run both encoders and the fusion; return unit features and attribute logits."""
        pictures = self.see(batch)
        embedded_BLH = self.text_encoder.embed(batch.piece_ids_BL, batch.piece_types_BL)
        sequence_BSH = self.fusion.early(embedded_BLH, batch.piece_mask_BL, pictures)
        mask_BS = self.fusion.sequence_mask(batch.piece_mask_BL, pictures)
        last, before = self.text_encoder(sequence_BSH, mask_BS)
        num_pieces = batch.piece_ids_BL.shape[1]
        mask_BL = batch.piece_mask_BL
        last = self.fusion.late(last[:, :num_pieces], mask_BL, pictures)
        sentence_BH = self.text_encoder.sentence(last, mask_BL)
        reading = self.reader(last, mask_BL, sentence_BH, pictures)
        logits = None
        if self.head is not None:
            earlier_BH = self.text_encoder.sentence(before[:, :num_pieces], mask_BL)
            logits = self.head(reading.sentence_BF, earlier_BH)
        features_BLF = self.reader.condition(reading, logits)
        index = batch.unit_piece_BU[..., None].expand(-1, -1, features_BLF.shape[-1])
        units_BUF = features_BLF.gather(1, index)
        return Encoded(units_BUF, batch.unit_mask_BU, logits, embedded_BLH, pictures)

    def see(self, batch: Batch) -> PictureRegions:
        """Encode each distinct picture once, unless a fixed encoder's regions are given."""
        if self.image_encoder is None:
            empty = torch.zeros(0, 0, 0, device=batch.piece_ids_BL.device)
            return PictureRegions(empty, batch.window_M[:0], batch.num_windows)
        if batch.pictures_K3SS.dim() == 3:
            given_KRV = self.region_norm(batch.pictures_K3SS.float())
            return PictureRegions(given_KRV[batch.picture_M], batch.window_M, batch.num_windows)
        size = len(batch.pictures_K3SS) if torch.is_grad_enabled() else MAX_PICTURES
        parts = [self.image_encoder(some) for some in batch.pictures_K3SS.split(max(1, size))]
        regions_KRV = self.region_norm(torch.cat(parts))
        return PictureRegions(regions_KRV[batch.picture_M], batch.window_M, batch.num_windows)

    def _tag(self, encoded: Encoded, pairs: Pairs | None) -> ModelOutput:
        if pairs is None:
            window_N = torch.arange(len(encoded.units_BUH), device=encoded.units_BUH.device)
            features = PairFeatures(encoded.units_BUH, window_N)
        else:
            window_N = pairs.window_N
            features = self._guide(encoded.units_BUH, pairs)
        mask_NU = encoded.unit_mask_BU[window_N]
        emissions_NUT = self.tagger(features, mask_NU)
        return ModelOutput(
            encoded.logits_BC, pairs, emissions_NUT, mask_NU, encoded.embedded_BLH, encoded.pictures
        )

    def _guide(self, units_BUH: Tensor, pairs: Pairs) -> PairFeatures:
        assert self.policy is not None
        if not isinstance(self.policy, BertPolicy):
            return self.policy(units_BUH, pairs.window_N, pairs.attribute_N)
        used, place_N = pairs.attribute_N.unique(return_inverse=True)
        return self.policy(units_BUH, pairs.window_N, place_N, self._name_vectors(used))

    def _name_vectors(self, attributes: Tensor) -> Tensor:
        """Return the vector of each attribute's encoded name."""
        assert isinstance(self.policy, BertPolicy)
        assert self._names is not None, "name_attributes() comes before the BERT policy's forward"
        if not len(attributes):
            return torch.zeros(0, self.reader.width, device=attributes.device)
        ids, mask = (tensor.to(attributes.device)[attributes] for tensor in self._names)
        longest = int(mask.sum(1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        last, _ = self.text_encoder(self.text_encoder.embed(ids, torch.zeros_like(ids)), mask)
        return self.policy.name_vectors(last, mask)
