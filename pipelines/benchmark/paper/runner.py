"""One run: build a system, train it, score it; in this process."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from pipelines.benchmark.paper.data import BenchmarkData, without_attributes
from pipelines.benchmark.paper.knowledge import pretrain_encoder
from pipelines.benchmark.paper.plan import RunPlan
from pipelines.benchmark.paper.ranking import run_ranker
from pipelines.benchmark.paper.score import Score, score_extractions
from pipelines.benchmark.paper.spacy_ner import run_spacy
from pipelines.benchmark.paper.store import Result
from pipelines.evaluate.scoring import SweepCounts, lowered
from ulsdram_core.extractor import Extractor
from ulsdram_core.fit.fitting import fit
from ulsdram_core.parts import ModelParts, asked_for, assemble
from ulsdram_core.schema import Extraction


def run(plan: RunPlan, data: BenchmarkData) -> Result:
    """Train and score one system with one seed; returns what is stored."""
    runners: dict[str, Callable[[RunPlan, BenchmarkData], Result]] = {
        "tagger": run_tagger,
        "kplug": run_tagger,
        "ranker": run_ranker,
        "spacy": run_spacy,
    }
    # Reading, tokenising and decoding are paid once for all runs and are no run's cost.
    _ = (data.train, data.test, data.store(plan, "train"), data.store(plan, "test"))
    started = time.monotonic()
    result = runners[plan.kind](plan, data)
    result["cost"]["minutes"] = (time.monotonic() - started) / 60
    return {
        "system": plan.system,
        "label": plan.label,
        "seed": plan.seed,
        "fingerprint": plan.fingerprint(data.key),
        "num_train": len(data.train),
        "num_test": len(data.test),
        **result,
        "plan": plan.document(),
    }


def build_parts(plan: RunPlan, data: BenchmarkData, *, random_init: bool = False) -> ModelParts:
    """Assemble the run's model; a fixed image encoder is the same for every seed."""
    labels = data.labels(plan.held_out)
    tokenizer = data.tokenizer(plan.extractor.model.text_encoder)
    torch.manual_seed(plan.seed)
    parts = assemble(plan.extractor, labels, tokenizer, random_init=random_init)
    if plan.has_fixed_pictures and parts.model.image_encoder is not None:
        fixed = data.fixed_encoder(plan)
        parts.model.image_encoder.load_state_dict(fixed.state_dict())
    return parts


def run_tagger(plan: RunPlan, data: BenchmarkData) -> Result:
    """Train a system made of the model's parts and score its extractions."""
    parts = build_parts(plan, data)
    if plan.kplug is not None:
        pretrain_encoder(parts, plan.kplug, data)
    examples = data.examples(plan, parts.tokenizer, parts.labels)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.monotonic()
    losses = [epoch.loss for epoch in fit(parts, examples, plan.fit, device=device)]
    trained = time.monotonic()
    extractions = _extract(parts, plan, data)
    scored = time.monotonic()
    if plan.held_out:
        return _zero_shot(parts, plan, data, losses)
    score = score_extractions(data.test, extractions, data.category_attributes)
    has_head = plan.extractor.model.head != "none"
    return {
        "figures": score.figures(has_spans=True, has_head=has_head),
        "products": score.per_product(),
        "sweep": _sweep(parts, plan, data) if plan.sweep else None,
        "losses": losses,
        "cost": {
            **parameter_counts(parts.model),
            "train_minutes": (trained - started) / 60,
            "products_per_second": len(data.test) / max(scored - trained, 1e-9),
        },
    }


def parameter_counts(model: torch.nn.Module) -> dict[str, int]:
    """Return how many parameters a model has and how many of them are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "parameters": sum(size for size, _ in sizes),
        "trained_parameters": sum(size for size, trained in sizes if trained),
    }


def _extract(parts: ModelParts, plan: RunPlan, data: BenchmarkData) -> list[Extraction]:
    extractor = Extractor(parts, precision=plan.fit.precision)
    return extractor.extract_decoded(data.decoded_test(plan))


def _sweep(parts: ModelParts, plan: RunPlan, data: BenchmarkData) -> list[dict[str, float]]:
    counts = SweepCounts()
    found = _extract(lowered(parts), plan, data)
    for product, extraction in zip(data.test, found, strict=True):
        counts.update(product.gold or (), extraction)
    return counts.compute()


def _zero_shot(
    parts: ModelParts, plan: RunPlan, data: BenchmarkData, losses: list[float]
) -> Result:
    """Ask for the held-out attributes of every test product, and for the seen ones as usual."""
    seen = _only(data, _extract(parts, plan, data), held_out=plan.held_out, keep=False)
    asked = asked_for(parts, plan.held_out)
    unseen = _only(data, _extract(asked, plan, data), held_out=plan.held_out, keep=True)
    return {
        "figures": {
            **unseen.figures(has_spans=True, has_head=False),
            "seen_tag_f1": seen.figures(has_spans=True, has_head=False)["tag_f1"],
        },
        "products": unseen.per_product(),
        "sweep": None,
        "losses": losses,
        "cost": parameter_counts(parts.model),
    }


def _only(
    data: BenchmarkData, found: list[Extraction], *, held_out: tuple[str, ...], keep: bool
) -> Score:
    """Score against the gold of the held-out attributes, or of all others."""
    names = {name for product in data.test for name in product.gold_attributes()}
    hidden = names - set(held_out) if keep else set(held_out)
    products = without_attributes(data.test, sorted(hidden))
    extractions = [
        replace(
            extraction,
            values=tuple(v for v in extraction.values if v.attribute not in hidden),
        )
        for extraction in found
    ]
    return score_extractions(products, extractions, {})
