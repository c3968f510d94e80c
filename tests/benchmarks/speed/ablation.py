"""What each optimisation is worth by itself: the same work without it and with it."""

import copy
import io
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
import torchcrf
from PIL import Image
from speed.catalogue import photo
from speed.prepared import COLUMNS, Item, Prepared, measure_item, prepare
from speed.released import PLACES, plain_lstm, rows_in_order, turned_rows
from speed.report import Section
from speed.workbench import Workbench
from torch import Tensor, nn

from ulsdram_core.encoders.folded_norm import FoldedBatchNorm2d, NormedConv2d
from ulsdram_core.encoders.image_encoder import ImageEncoder
from ulsdram_core.encoders.text_encoder import TextEncoder
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.method.model import UlsDram
from ulsdram_core.precision import autocast, full_precision

SHARED = 4  # of 16 listings whose picture another one shows, in the row about distinct pictures


def run(bench: Workbench) -> Section:
    """Rows from one batch of the large model, but where another one is named."""
    section = Section(
        f"What each optimisation is worth ({bench.large.name})",
        COLUMNS,
    )
    prepared = prepare(bench.large, bench.sizes.part_products)
    with torch.inference_mode(), prepared.numbers():
        items = [*text_items(prepared), *picture_items(prepared), *tag_items(prepared)]
        if not bench.is_tiny:
            # Light networks wait for memory, heavy ones for arithmetic: other things pay.
            small = picture_items(prepare(bench.small, bench.sizes.part_products))
            items += [replace(item, name=f"{item.name}, MobileNetV2") for item in small]
        items += decode_items()
        for item in items:
            measure_item(section, item, bench.sizes.rounds)
    section.notes.append(
        "ms per product (per picture for decoding); `in use`: whether the extractor does it on "
        f"this machine; all in {prepared.subject.extractor.precision}, but where a row says "
        "otherwise; what is not in use is timed once"
    )
    return section


def text_items(prepared: Prepared) -> list[Item]:
    """True lengths; the attention kernel; number formats."""
    encoder, count = prepared.model.text_encoder, prepared.batch.num_windows
    mask, embedded = prepared.batch.piece_mask_BL, prepared.embedded
    missing = PLACES - embedded.shape[1]
    padded, padded_mask = F.pad(embedded, (0, 0, 0, missing)), F.pad(mask, (0, missing))
    eager = eager_twin(encoder)
    return [
        Item(
            "text at its true length, not at 128",
            lambda: encoder(padded, padded_mask),
            lambda: encoder(embedded, mask),
            count,
            note=f"{float(mask.sum(1).float().mean()):.0f} pieces a text on average, "
            f"{embedded.shape[1]} in the batch",
        ),
        Item(
            "SDPA instead of eager attention",
            lambda: eager(embedded, mask),
            lambda: encoder(embedded, mask),
            count,
        ),
        Item(
            "text encoder in bf16",
            lambda: in_fp32(encoder, embedded, mask),
            lambda: in_bf16(encoder, embedded, mask),
            count,
            used=prepared.subject.extractor.precision == "bf16",
        ),
    ]


def eager_twin(encoder: TextEncoder) -> TextEncoder:
    """The same weights with attention written out."""
    twin = copy.deepcopy(encoder)
    for module in twin.modules():
        if hasattr(module, "config") and hasattr(module.config, "_attn_implementation"):
            module.config._attn_implementation = "eager"
    return twin.eval()


def in_bf16(module: nn.Module, *inputs: Tensor) -> object:
    """A call under autocast."""
    with autocast(inputs[0].device, "bf16"):
        return module(*inputs)


def in_fp32(module: nn.Module, *inputs: Tensor) -> object:
    """A call outside of any autocast."""
    with full_precision(inputs[0].device):
        return module(*(value.float() if value.is_floating_point() else value for value in inputs))


def picture_items(prepared: Prepared) -> list[Item]:
    """Distinct pictures; memory format; folded norms; number formats."""
    encoder, pixels = prepared.model.image_encoder, prepared.batch.pictures_K3SS
    count = len(pixels)
    distinct = pixels[: max(1, count - SHARED * count // 16)]
    planar, unfolded = planar_twin(encoder), unfolded_twin(encoder)
    return [
        Item(
            f"each distinct picture once ({SHARED} of 16 listings share one)",
            lambda: encoder(pixels),
            lambda: encoder(distinct),
            count,
        ),
        Item(
            "pictures in channels_last",
            lambda: planar(pixels),
            lambda: encoder(pixels),
            count,
        ),
        Item(
            "batch norms folded into convolutions",
            lambda: unfolded(pixels),
            lambda: encoder(pixels),
            count,
        ),
        Item(
            "image encoder in bf16",
            lambda: in_fp32(encoder, pixels),
            lambda: in_bf16(encoder, pixels),
            count,
            used=prepared.subject.extractor.precision == "bf16",
        ),
    ]


def planar_twin(encoder: ImageEncoder) -> ImageEncoder:
    """The same weights in torch's default memory format."""
    twin = copy.deepcopy(encoder).to(memory_format=torch.contiguous_format)
    twin.config = encoder.config.model_copy(update={"channels_last": False})
    return twin.eval()


def unfolded_twin(encoder: ImageEncoder) -> ImageEncoder:
    """The same weights with batch norms as layers of their own."""
    twin = copy.deepcopy(encoder)
    for module in twin.modules():
        if isinstance(module, NormedConv2d):
            module.__class__ = nn.Conv2d  # the benchmark's encoders have no other kind
        elif isinstance(module, FoldedBatchNorm2d):
            module.__class__ = nn.BatchNorm2d
    return twin.eval()


def tag_items(prepared: Prepared) -> list[Item]:
    """Factorised guidance, the BiLSTM, the CRF."""
    model, count = prepared.model, prepared.batch.num_windows
    lstm, features, mask = model.tagger.lstm, prepared.features, prepared.mask_NU
    lengths = mask.sum(1)
    gates = features.projection(lstm.weight_input, lstm.bias)
    ours, theirs = model.tagger.tags, torchcrf.CRF(3, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    emissions = prepared.emissions

    def joined() -> Tensor:
        base = features.base_BUH[features.window_N]
        return torch.cat([base, features.scale_NU[..., None] * base], -1)

    plain = PlainBiLstm(model)
    padded_mask = F.pad(mask, (0, PLACES - mask.shape[1]))
    note = f"{len(mask) / count:.1f} attributes a product"
    return [
        Item(
            "factorised guidance: W1 f + s W2 f",
            lambda: F.linear(joined(), lstm.weight_input, lstm.bias),
            lambda: features.projection(lstm.weight_input, lstm.bias).dense(),
            count,
            note=note,
        ),
        Item(
            "our BiLSTM, guidance included, against nn.LSTM packed to true lengths",
            lambda: plain.packed(joined(), lengths),
            lambda: lstm(features.projection(lstm.weight_input, lstm.bias), lengths),
            count,
        ),
        Item(
            "the same, against nn.LSTM padded to 128, in fp32 as released",
            lambda: plain.padded(F.pad(joined(), (0, 0, 0, PLACES - mask.shape[1])), padded_mask),
            lambda: lstm(features.projection(lstm.weight_input, lstm.bias), lengths),
            count,
        ),
        Item(
            "both directions in one product, the recurrence alone",
            lambda: recur_apart(prepared, gates.dense()),
            lambda: lstm(gates, lengths),
            count,
        ),
        Item(
            "our CRF decode against pytorch-crf",
            lambda: theirs.decode(emissions, mask),
            lambda: ours.viterbi(emissions, mask),
            count,
        ),
    ]


class PlainBiLstm:
    """nn.LSTM with the tagger's weights."""

    def __init__(self, model: UlsDram) -> None:
        directions = [plain_lstm(model, place) for place in (0, 1)]
        self.forwards, self.backwards = directions
        ours = model.tagger.lstm
        self.both = nn.LSTM(
            ours.weight_input.shape[1], ours.hidden, batch_first=True, bidirectional=True
        )
        with torch.no_grad():
            for suffix, lstm in zip(("", "_reverse"), directions, strict=True):
                for name, weight in lstm.named_parameters():
                    getattr(self.both, name + suffix).copy_(weight)

    def packed(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """True lengths."""
        packed = nn.utils.rnn.pack_padded_sequence(
            rows, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(self.both(packed)[0], batch_first=True)[0]

    def padded(self, rows: Tensor, mask: Tensor) -> Tensor:
        """As the released code runs it, with the right values at the row's units; in fp32."""
        # Not every CPU that can be told to compute in bf16 has such an LSTM.
        with full_precision(rows.device):
            rows = rows.float()
            turned = turned_rows(mask)
            other = rows_in_order(self.backwards(rows_in_order(rows, turned))[0], turned)
            return torch.cat([self.forwards(rows)[0], other], -1)


def recur_apart(prepared: Prepared, gates: Tensor) -> Tensor:
    """The recurrence with one matrix product per direction and step."""
    lstm = prepared.model.tagger.lstm
    half, weight = 4 * lstm.hidden, lstm.weight_hidden
    rows, units = gates.shape[:2]
    outs = []
    for place in (0, 1):
        hidden = cell = gates.new_zeros(rows, lstm.hidden)
        for step in range(units) if place == 0 else reversed(range(units)):
            now = gates[:, step, place * half : (place + 1) * half] + hidden @ weight[place].T
            enter, forget, candidate, out = now.chunk(4, -1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
            hidden = out.sigmoid() * cell.tanh()
            outs.append(hidden)
    return torch.stack(outs)


def decode_items() -> list[Item]:
    """Scaled JPEG decoding at two sizes."""
    items = []
    for width, height in ((500, 375), (1000, 1000)):
        data = photo(width, height)
        items.append(
            Item(
                f"scaled decoding of {width}x{height} JPEG",
                lambda data=data: [plain_decode(data, 224) for _ in range(8)],
                lambda data=data: [decode_picture(data, ImageConfig()) for _ in range(8)],
                8,
            )
        )
    return items


def plain_decode(data: bytes, size: int) -> np.ndarray:
    """At full resolution, as a straightforward script would."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR))
