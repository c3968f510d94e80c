"""What the extractor does not do, measured once: it may pay on another machine."""

import copy
from dataclasses import replace

import torch
from speed.ablation import in_fp32
from speed.prepared import COLUMNS, Item, Prepared, measure_item, prepare
from speed.report import Section
from speed.workbench import Workbench
from torch import nn

from ulsdram_core.extractor import Extractor


def run(bench: Workbench) -> Section:
    """Compiling takes minutes: full benchmark only."""
    section = Section(f"Not in use, tried ({bench.large.name})", COLUMNS)
    if not bench.sizes.tries:
        section.notes.append("belongs to the full benchmark")
        return section
    prepared = prepare(bench.large, bench.sizes.part_products)
    with torch.inference_mode(), prepared.numbers():
        for item in tries(prepared):
            measure_item(section, item, bench.sizes.rounds)
    return section


def tries(prepared: Prepared) -> list[Item]:
    """torch.compile, int8."""
    encoder, pixels = prepared.model.image_encoder, prepared.batch.pictures_K3SS
    text, embedded, mask = (
        prepared.model.text_encoder,
        prepared.embedded,
        prepared.batch.piece_mask_BL,
    )
    int8 = torch.ao.quantization.quantize_dynamic(
        copy.deepcopy(text), {nn.Linear}, dtype=torch.qint8
    )
    items = [
        Item(
            "text encoder with int8 weights (dynamic)",
            lambda: text(embedded, mask),
            lambda: in_fp32(int8, embedded, mask),
            len(embedded),
            used=False,
            note=int8_cost(prepared, int8),
        ),
    ]
    for name, part, inputs in (
        ("image encoder", encoder, (pixels,)),
        ("text encoder", text, (embedded, mask)),
    ):
        compiled = torch.compile(part, dynamic=False)
        items.append(
            Item(
                f"torch.compile of the {name}",
                lambda part=part, inputs=inputs: part(*inputs),
                lambda compiled=compiled, inputs=inputs: compiled(*inputs),
                len(inputs[0]),
                used=False,
            )
        )
    return items


def int8_cost(prepared: Prepared, int8: nn.Module) -> str:
    """Spans that change when only the text encoder is quantised."""
    subject = prepared.subject
    parts = replace(subject.parts, model=copy.deepcopy(subject.parts.model))
    parts.model.text_encoder = int8
    before = subject.extractor.extract_decoded(subject.decoded)
    after = Extractor(parts, device="cpu", precision="fp32").extract_decoded(subject.decoded)
    spans = [
        {(e.product_id, v.attribute, v.source, v.start, v.end) for e in rows for v in e.values}
        for rows in (before, after)
    ]
    equal = len(spans[0] & spans[1]) / max(1, len(spans[0] | spans[1]))
    return f"{100 * equal:.1f}% of spans stay"
