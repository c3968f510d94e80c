"""K-PLUG's pre-training on the user's unlabelled texts; once for all seeds."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator

import torch
from safetensors.torch import load_file, save_file

from pipelines.benchmark.paper.data import BenchmarkData
from ulsdram_core.baselines.kplug import KnownText, KplugConfig, find_phrases, pretrain
from ulsdram_core.encoders.text_encoder import TextEncoder
from ulsdram_core.parts import ModelParts
from ulsdram_core.schema import Product
from ulsdram_core.text import TextError, TextProcessor, Window, find_units

_log = logging.getLogger(__name__)


def pretrain_encoder(parts: ModelParts, config: KplugConfig, data: BenchmarkData) -> None:
    """Pre-train the model's text encoder in place, or load what an earlier run pre-trained."""
    encoder = parts.model.text_encoder
    if not isinstance(encoder, TextEncoder):
        raise ValueError("K-PLUG pre-trains an encoder with attention, found a BiLSTM")
    facts = [data.key, config.model_dump(), parts.config.model.text_encoder.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    path = data.cache / f"kplug-{digest}.safetensors"
    if not path.exists():
        texts = list(known_texts(parts, data))
        _log.info("K-PLUG: pre-training on %d unlabelled texts", len(texts))
        mask_id = parts.tokenizer.mask_token_id
        if mask_id is None:
            raise ValueError("the tokenizer has no [MASK], expected one: K-PLUG fills masks in")
        with torch.random.fork_rng(devices=[]):
            for loss in pretrain(encoder, texts, config, mask_id=mask_id):
                _log.info("K-PLUG: loss %.3f", loss)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{os.getpid()}.{path.name}")
        state = {name: t.detach().cpu().contiguous() for name, t in encoder.state_dict().items()}
        save_file(state, draft)
        draft.replace(path)
    encoder.load_state_dict(load_file(path))


def known_texts(parts: ModelParts, data: BenchmarkData) -> Iterator[KnownText]:
    """Yield the windows of the unlabelled products with the phrases that gold values spell."""
    text = TextProcessor(parts.tokenizer, parts.config.text)
    unit = parts.config.text.unit
    spelled = {
        tuple(span.value[start:end].lower() for start, end in find_units(span.value, unit))
        for product in data.train
        for span in product.gold or ()
    }
    spelled.discard(())
    longest = max(map(len, spelled), default=1)
    categories: dict[str, int] = {}
    for product in data.source.unlabelled_texts():
        category = -1
        if product.category is not None:
            category = categories.setdefault(product.category, len(categories))
        try:
            windows = text.encode(product.texts)
        except TextError:
            continue  # longer than any text the systems read
        for window in windows:
            units = _units(product, window, parts.config.text.sources)
            yield KnownText(window, _within_sources(units, window, spelled, longest), category)


def _units(product: Product, window: Window, sources: tuple[str, ...]) -> list[str]:
    return [
        product.texts[sources[source]][start:end].lower()
        for source, start, end in zip(
            window.unit_source.tolist(),
            window.unit_start.tolist(),
            window.unit_end.tolist(),
            strict=True,
        )
    ]


def _within_sources(
    units: list[str], window: Window, known: set[tuple[str, ...]], longest: int
) -> tuple[tuple[int, int], ...]:
    source = window.unit_source
    found = find_phrases(units, known, longest)
    return tuple((start, end) for start, end in found if source[start] == source[end - 1])
