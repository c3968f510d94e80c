"""The released pipeline, written plainly on the same weights: the peer of the extractor.

As there: one product's picture and text after the other, every text padded to 128 pieces, fp32,
eager attention, every (product, attribute) pair through nn.LSTM over [f ; s f], pytorch-crf, and
spans read tag by tag in Python. Unlike there, padding is masked and regions are laid out right: the
released code does neither, which costs the same and gives other values.

Axes: B products, P = 128 places (pieces, or units), H hidden, N pairs, C attributes, T tags.
"""

import copy
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import torchcrf
import torchvision
from PIL import Image
from torch import Tensor, nn
from transformers import BertModel

from ulsdram_core.encoders.image_backbone import tiny_blocks
from ulsdram_core.encoders.image_encoder import ImageEncoder
from ulsdram_core.encoders.weights import copy_state
from ulsdram_core.method.model import UlsDram
from ulsdram_core.method.tir import TirFusion
from ulsdram_core.parts import ModelParts
from ulsdram_core.schema import Product, Value

PLACES = 128
Unit = tuple[int, int, int, int]  # source, start, end in characters; place of its first piece


@dataclass(frozen=True)
class PlainBatch:
    """Some products as tensors, padded to 128 places."""

    ids_BP: Tensor
    types_BP: Tensor
    mask_BP: Tensor
    first_piece_BP: Tensor
    unit_mask_BP: Tensor
    pixels_B: Tensor
    units: list[list[Unit]]


@dataclass(frozen=True)
class PlainOutput:
    """Scores of a batch and its pairs."""

    logits_BC: Tensor
    product_N: Tensor
    attribute_N: Tensor
    emissions_NPT: Tensor
    mask_NP: Tensor


class PlainModel(nn.Module):
    """The method from torchvision, transformers, nn.LSTM and pytorch-crf, on a model's weights."""

    def __init__(self, model: UlsDram) -> None:
        super().__init__()
        assert isinstance(model.fusion, TirFusion)
        self.image_encoder = plain_backbone(model.image_encoder)
        self.register_buffer("mean", model.image_encoder.mean / 255)
        self.register_buffer("std", model.image_encoder.std / 255)
        self.region_norm = copy.deepcopy(model.region_norm)
        self.text_encoder = plain_bert(model)
        self.fusion = copy.deepcopy(model.fusion)
        self.head = copy.deepcopy(model.head)
        self.prototypes = copy.deepcopy(model.policy.prototypes)
        self.forwards, self.backwards = (plain_lstm(model, place) for place in (0, 1))
        self.score = copy.deepcopy(model.tagger.score)
        self.crf = torchcrf.CRF(model.tagger.tags.num_tags, batch_first=True)
        self.crf.load_state_dict(model.tagger.tags.state_dict())

    def encode(self, batch: PlainBatch) -> tuple[Tensor, Tensor]:
        """Unit features [B, P, H] and attribute logits [B, C]."""
        regions = self.image_encoder((batch.pixels_B - self.mean) / self.std)
        regions = self.region_norm(regions.flatten(2).transpose(1, 2))
        embedded = self.text_encoder.embeddings(
            input_ids=batch.ids_BP, token_type_ids=batch.types_BP
        )
        hidden = embedded + self._tir(embedded, regions, batch.mask_BP)
        attention = torch.zeros_like(batch.mask_BP, dtype=hidden.dtype)
        attention = attention.masked_fill(~batch.mask_BP, torch.finfo(hidden.dtype).min)
        before = hidden
        for layer in self.text_encoder.encoder.layer:
            before, hidden = hidden, layer(hidden, attention[:, None, None, :])
        logits = self.head(hidden[:, 0], before[:, 0])
        index = batch.first_piece_BP[..., None].expand(-1, -1, hidden.shape[-1])
        return hidden.gather(1, index), logits

    def _tir(self, text: Tensor, regions: Tensor, mask: Tensor) -> Tensor:
        tir = self.fusion
        scale = tir.config.dim**0.5
        value = tir.text_value(text) * mask[..., None]
        mixed = tir.text_query(text) @ tir.text_key(text).transpose(1, 2) / scale @ value
        scores = tir.region_query(text) @ tir.region_key(regions).transpose(1, 2) / scale
        return tir.out(mixed + scores @ tir.region_value(regions))

    def tag(self, units: Tensor, batch: PlainBatch, product_N: Tensor, attribute_N: Tensor):
        """Emissions [N, P, T] and mask [N, P] of the pairs."""
        features, mask = units[product_N], batch.unit_mask_BP[product_N]
        guide = self.prototypes(attribute_N)[:, None]
        pair = torch.cat(
            [features, F.cosine_similarity(features, guide, -1)[..., None] * features], -1
        )
        # nn.LSTM in both directions, except that the second one starts at the last unit and not
        # in the padding: it reads each row turned around within its length.
        turned = turned_rows(mask)
        states = self.forwards(pair)[0]
        other = self.backwards(rows_in_order(pair, turned))[0]
        return self.score(torch.cat([states, rows_in_order(other, turned)], -1)), mask

    def forward(self, batch: PlainBatch, threshold: float) -> PlainOutput:
        """Score the attributes above the threshold."""
        units, logits = self.encode(batch)
        product, attribute = (torch.sigmoid(logits) > threshold).nonzero(as_tuple=True)
        emissions, mask = self.tag(units, batch, product, attribute)
        return PlainOutput(logits, product, attribute, emissions, mask)


def turned_rows(mask_NP: Tensor) -> Tensor:
    """Order of places that turns each row around within its length; padding stays."""
    place = torch.arange(mask_NP.shape[1])[None]
    return torch.where(mask_NP, mask_NP.sum(1, keepdim=True) - 1 - place, place)


def rows_in_order(rows_NPX: Tensor, order_NP: Tensor) -> Tensor:
    """Each row's places in the given order."""
    return rows_NPX.gather(1, order_NP[..., None].expand(-1, -1, rows_NPX.shape[-1]))


def plain_backbone(encoder: ImageEncoder) -> nn.Module:
    """The torchvision network without its head, in its usual memory format."""
    name = encoder.config.architecture
    if name == "tiny":  # ours; torchvision has none as small
        body = nn.Sequential(*tiny_blocks(encoder.config.width))
    else:
        network = torchvision.models.get_model(name, weights=None)
        body = nn.Sequential(*list(network.children())[:-2])
        if hasattr(network, "features"):
            body = network.features
    copy_state(body.state_dict(), encoder.blocks.state_dict(), origin=name)
    return body


def plain_bert(model: UlsDram) -> BertModel:
    """transformers' BertModel with eager attention, as the released code has it."""
    config = copy.deepcopy(model.text_encoder.config)
    config._attn_implementation = "eager"
    bert = BertModel(config, add_pooling_layer=False)
    bert.embeddings.load_state_dict(model.text_encoder.embeddings.state_dict())
    bert.encoder.layer.load_state_dict(model.text_encoder.layers.state_dict())
    return bert


def plain_lstm(model: UlsDram, place: int) -> nn.LSTM:
    """One direction of the tagger's LSTM."""
    ours = model.tagger.lstm
    lstm = nn.LSTM(ours.weight_input.shape[1], ours.hidden, batch_first=True)
    part = slice(place * 4 * ours.hidden, (place + 1) * 4 * ours.hidden)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(ours.weight_input[part])
        lstm.weight_hh_l0.copy_(ours.weight_hidden[place])
        lstm.bias_ih_l0.copy_(ours.bias[part])
        lstm.bias_hh_l0.zero_()
    lstm.bias_hh_l0.requires_grad_(requires_grad=False)  # ours has one bias: equal steps
    return lstm


class ReleasedPipeline:
    """Products in, values out; `batch_size` products at a time."""

    def __init__(self, parts: ModelParts, *, batch_size: int = 16) -> None:
        self.model = PlainModel(parts.model).eval()
        self.tokenizer = parts.tokenizer
        self.attributes = parts.labels.attributes
        self.sources = parts.config.text.sources
        self.threshold = parts.config.range.threshold
        self.size = parts.config.image.size
        self.batch_size = batch_size

    def extract(self, products: Sequence[Product]) -> list[list[Value]]:
        """The values of each product; their confidence is the attribute's score alone."""
        values = []
        for some in self._batches(products):
            batch = self.read(some)
            values += self.values(some, batch, self.run(batch))
        return values

    def extract_with_confidence(self, products: Sequence[Product]) -> list[list[Value]]:
        """The same with P(exactly this span) in the confidences; the released code has none."""
        values = []
        for some in self._batches(products):
            batch = self.read(some)
            output = self.run(batch)
            values += self.values(some, batch, output, exact=True)
        return values

    def _batches(self, products: Sequence[Product]) -> Iterator[Sequence[Product]]:
        for start in range(0, len(products), self.batch_size):
            yield products[start : start + self.batch_size]

    @torch.inference_mode()
    def run(self, batch: PlainBatch) -> PlainOutput:
        """One batch through the model."""
        return self.model(batch, self.threshold)

    def read(self, products: Sequence[Product]) -> PlainBatch:
        """Decode pictures and texts one by one, then stack."""
        pixels = torch.stack([self._picture(product.pictures[0]) for product in products])
        texts = [self._text(product) for product in products]
        tensors = [
            torch.tensor(column) for column in zip(*(text[:5] for text in texts), strict=True)
        ]
        ids, types, mask, first_piece, unit_mask = tensors
        return PlainBatch(
            ids, types, mask.bool(), first_piece, unit_mask.bool(), pixels, [t[5] for t in texts]
        )

    def _picture(self, data: bytes) -> Tensor:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

    def _text(self, product: Product):
        texts = [product.texts.get(source) or None for source in self.sources]
        encoding = self.tokenizer(
            *[text for text in texts if text],
            padding="max_length",
            truncation=True,
            max_length=PLACES,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        units = self._units(encoding, [i for i, text in enumerate(texts) if text])
        padding = [0] * (PLACES - len(units))
        return (
            encoding["input_ids"],
            encoding["token_type_ids"],
            encoding["attention_mask"],
            [unit[3] for unit in units] + padding,
            [1] * len(units) + padding,
            units,
        )

    @staticmethod
    def _units(encoding, sources: Sequence[int]) -> list[Unit]:
        units: list[Unit] = []
        last = None
        words, texts = encoding.word_ids(), encoding.sequence_ids()
        for place, (word, text) in enumerate(zip(words, texts, strict=True)):
            if word is None:
                continue
            start, end = encoding["offset_mapping"][place]
            if (text, word) == last:
                units[-1] = (*units[-1][:2], end, units[-1][3])
            else:
                units.append((sources[text], start, end, place))
            last = (text, word)
        return units

    def values(
        self,
        products: Sequence[Product],
        batch: PlainBatch,
        output: PlainOutput,
        *,
        exact: bool = False,
    ) -> list[list[Value]]:
        """Read the best tags of each pair, one tag after the other."""
        found: list[list[Value]] = [[] for _ in products]
        if not len(output.product_N):
            return found
        with torch.inference_mode():
            best = self.model.crf.decode(output.emissions_NPT, output.mask_NP)
        scores = torch.sigmoid(output.logits_BC)
        for row, tags in enumerate(best):
            place, attribute = int(output.product_N[row]), int(output.attribute_N[row])
            units = batch.units[place]
            for start, end in spans_of(tags, units):
                source = self.sources[units[start][0]]
                first, last = units[start][1], units[end - 1][2]
                text = products[place].texts[source][first:last]
                confidence = float(scores[place, attribute])
                if exact:
                    confidence *= self._span_probability(output, row, start, end)
                name = self.attributes[attribute]
                found[place].append(Value(name, text, source, first, last, confidence))
        return found

    @torch.no_grad()
    def _span_probability(self, output: PlainOutput, row: int, start: int, end: int) -> float:
        """Two of pytorch-crf's normalisers: with all tags, and with B I..I and no further I."""
        length = int(output.mask_NP[row].sum())
        emissions = output.emissions_NPT[row, :length].double()[:, None]
        only = emissions.clone()
        only[start, 0, [0, 2]] = -1e4
        only[start + 1 : end, 0, :2] = -1e4
        if end < length:
            only[end, 0, 2] = -1e4
        mask = torch.ones(length, 1, dtype=torch.bool)
        crf = copy.deepcopy(self.model.crf).double()
        total, part = (crf._compute_normalizer(e, mask) for e in (emissions, only))
        return float((part - total).exp())


def spans_of(tags: Sequence[int], units: Sequence[Unit]) -> Iterator[tuple[int, int]]:
    """Half-open spans of O, B, I; an I after nothing opens one, and none crosses two texts."""
    start = None
    for place, tag in enumerate([*tags, 0]):
        goes_on = tag == 2 and start is not None and units[place][0] == units[place - 1][0]
        if start is not None and not goes_on:
            yield start, place
            start = None
        if tag and start is None:
            start = place
