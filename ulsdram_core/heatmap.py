"""Where a text looks in the product's pictures, as in Fig. 6 and 7 of the paper.

Axes: B windows, L pieces, M (picture, window) links, R regions, U units, V units of the product,
P pictures, h x w grid of regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ulsdram_core.batch import Batch, Example, collate
from ulsdram_core.encoders.text_encoder import TextEncoder
from ulsdram_core.extractor import Extractor
from ulsdram_core.method.fusion import ConcatFusion, GatedFusion
from ulsdram_core.method.jave import JaveReader
from ulsdram_core.method.model import UlsDram
from ulsdram_core.method.tir import TirFusion
from ulsdram_core.schema import DecodedProduct
from ulsdram_core.text import Window, owned_slice, product_units


class TextSpan(NamedTuple):
    """Half-open character offsets in one text column."""

    source: str
    start: int
    end: int


@dataclass(frozen=True)
class Heatmap:
    """Weights of the regions of every picture for one span of the text."""

    span: TextSpan
    weights_Phw: np.ndarray
    """float32; of any sign for TIR without softmax, else positive."""


@torch.inference_mode()
def heatmaps(
    extractor: Extractor, product: DecodedProduct, spans: Sequence[TextSpan] | None = None
) -> list[Heatmap]:
    """Return one heatmap per span, the mean over its units; by default one per unit.

    TIR: the scores of Eq. 4. concat and self_attention: the encoder's first layer from text to
    regions, mean over heads. gated, M-JAVE: the gated scores. Always in fp32.
    """
    windows = extractor.text.encode(product.texts)
    source_V, start_V, end_V = (column.tolist() for column in product_units(windows))
    names = extractor.config.text.sources
    units = [
        TextSpan(names[source], start, end)
        for source, start, end in zip(source_V, start_V, end_V, strict=True)
    ]
    weights_PVhw = _unit_weights(extractor, product, windows)
    wanted = units if spans is None else spans
    return [Heatmap(span, weights_PVhw[:, _inside(span, units)].mean(1)) for span in wanted]


def _unit_weights(
    extractor: Extractor, product: DecodedProduct, windows: Sequence[Window]
) -> np.ndarray:
    """Return [P, V, h, w], each unit's weights from the window that owns it."""
    config, encoder = extractor.config.image, extractor.model.image_encoder
    if config is None or encoder is None:
        raise ValueError("found a model without an image encoder, expected one that sees pictures")
    num_pictures = len(product.pictures)
    if not num_pictures:
        raise ValueError(
            f"product {product.product_id!r} has no usable picture ({product.reason}), "
            "expected one or more"
        )
    grid = encoder.grid(config.size)
    if not windows:
        return np.zeros((num_pictures, 0, *grid), dtype=np.float32)
    examples = [Example(window, product.pictures) for window in windows]
    batch = collate(examples, picture_size=config.size).to(extractor.device)
    weights_MLR = region_weights(extractor.model, batch).float()
    index_MU1 = batch.unit_piece_BU[batch.window_M][..., None]
    weights_MUR = weights_MLR.gather(1, index_MU1.expand(-1, -1, weights_MLR.shape[-1]))
    by_window = weights_MUR.cpu().numpy().reshape(len(windows), num_pictures, -1, *grid)
    owned = [part[:, owned_slice(window)] for part, window in zip(by_window, windows, strict=True)]
    return np.concatenate(owned, axis=1)


def _inside(span: TextSpan, units: Sequence[TextSpan]) -> list[int]:
    """Return the places of the units that the span touches."""
    places = [
        place
        for place, unit in enumerate(units)
        if unit.source == span.source and unit.start < span.end and unit.end > span.start
    ]
    if not places:
        raise ValueError(
            f"found no word in [{span.start}, {span.end}) of {span.source!r}, expected a span "
            "that touches one"
        )
    return places


def region_weights(model: UlsDram, batch: Batch) -> Tensor:
    """Return the weights [M, L, R] with which pieces select regions."""
    fusion, encoder = model.fusion, model.text_encoder
    pictures = model.see(batch)
    text_BLH = encoder.embed(batch.piece_ids_BL, batch.piece_types_BL)
    if isinstance(fusion, TirFusion):
        return fusion.region_scores(text_BLH, pictures)
    sequence_BSH = fusion.early(text_BLH, batch.piece_mask_BL, pictures)
    mask_BS = fusion.sequence_mask(batch.piece_mask_BL, pictures)
    if isinstance(fusion, ConcatFusion):
        assert isinstance(encoder, TextEncoder), "ModelConfig gives regions an encoder to read them"
        attention_BSS = encoder.first_attention(sequence_BSH, mask_BS)
        return fusion.region_scores(attention_BSS, batch.piece_ids_BL.shape[1], pictures)
    encoded_BLH = encoder(sequence_BSH, mask_BS)[0]
    if isinstance(model.reader, JaveReader):
        return model.reader.region_scores(encoded_BLH, pictures)
    assert isinstance(fusion, GatedFusion), "ModelConfig gives an image encoder a fusion"
    return fusion.region_scores(encoded_BLH, pictures)
