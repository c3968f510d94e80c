"""Do catalogue-aware targets help? Seeds of each target kind on the demo catalogue's duplicates.

    python tests/benchmarks/eclip_ablation.py --products 4000 --epochs 6 --seeds 3

Trains a small dual encoder from scratch on the catalogue's train split. Scores the other listings:
every listing that has another listing of the same product looks for one (its own entry left out):
by text among texts, by picture among texts, by both among both. Prints R@1 and R@5 in percent, the
gap to identity targets (CLIP) in standard deviations, and one JSON object as the last line.
"""

import argparse
import json
import statistics
import time
from collections import Counter

import torch
from eclip_in_memory import pretrain, read_pairs

from ulsdram_core.demo import DemoConfig, generate, split
from ulsdram_core.eclip.pairs import Pair
from ulsdram_core.eclip.parts import EclipConfig, EclipParts, assemble_eclip
from ulsdram_core.eclip.pretraining import PretrainConfig
from ulsdram_core.eclip.retrieval import recall_at
from ulsdram_core.eclip.validation import embed_pairs
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.text import TextProcessor

CLIP = "identity"
# In batches drawn at random duplicates seldom meet: there plain CLIP suffers least.
SYSTEMS = {
    "catalog": {"targets": {"kind": "catalog"}},
    "masked": {"targets": {"kind": "masked"}},
    "mixed": {"targets": {"kind": "mixed"}},
    "identity, grouped": {"targets": {"kind": "identity"}},
    CLIP: {"targets": {"kind": "identity"}, "group": 1},
}
CONFIG = {
    "model": {
        "text_encoder": {"name": "tiny", "hidden": 96, "layers": 2, "heads": 4},
        "image_encoder": {"architecture": "tiny", "width": 16},
        "dim": 64,
    },
    "image": {"size": 64},
    "text": {"max_pieces": 64},
}


def load(num_products: int, duplicates: float) -> dict[str, list]:
    """Draw the catalogue and split it by catalogue entry."""
    parts = {"train": [], "held out": []}
    config = DemoConfig(num_products=num_products, picture_size=64, duplicates=duplicates)
    for product in generate(config):
        name = "train" if split(product.catalog_id) == "train" else "held out"
        parts[name].append((product.to_product(), product.catalog_id))
    return parts


def score(parts: EclipParts, pairs: list[Pair]) -> dict[str, float]:
    """R@1 and R@5 of finding another listing of the same product, in percent."""
    vectors = embed_pairs(parts.model, pairs, stream_pairs=64, picture_size=64)
    counts = Counter(pair.catalog for pair in pairs)
    queries = torch.tensor([i for i, pair in enumerate(pairs) if counts[pair.catalog] > 1])
    groups = torch.tensor([pair.catalog for pair in pairs])
    text, picture = vectors.text_BE, vectors.picture_BE
    joint = torch.nn.functional.normalize(text + picture, dim=-1)
    found = {"queries": len(queries)}
    for name, query, gallery in (
        ("text_to_text", text, text), ("picture_to_text", picture, text), ("joint", joint, joint),
    ):  # fmt: skip
        recall = recall_at(
            query[queries], gallery, groups[queries], groups, ks=(1, 5), own_Q=queries
        )
        found |= {f"{name}_r{k}": 100 * share for k, share in recall.items()}
    return found


def run(system: dict, products: dict[str, list], *, seed: int, options: dict) -> dict[str, float]:
    """Train one system with one seed and score it."""
    tokenizer = build_tokenizer([p.texts["title"] for p, _ in products["train"]], 2000)
    torch.manual_seed(seed)
    parts = assemble_eclip(EclipConfig.model_validate(CONFIG), tokenizer)
    text = TextProcessor(tokenizer, parts.config.text)
    pairs = {
        name: list(read_pairs(rows, text, parts.config.image)) for name, rows in products.items()
    }
    optim = {"text_rate": 1e-3, "image_rate": 1e-3, "schedule": "cosine"}
    growth = {"max_streams": 1}
    config = PretrainConfig.model_validate(
        {"seed": seed, "optim": optim, "growth": growth, **options, **system}
    )
    started = time.time()
    for epoch in pretrain(parts, pairs["train"], config):
        elapsed = time.time() - started
        print(f"  epoch {epoch.number} loss {epoch.loss:.3f} {elapsed:.0f} s", flush=True)
    return {**score(parts, pairs["held out"]), "seconds": time.time() - started}


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over the seeds."""
    return {
        key: {
            "mean": statistics.mean(row[key] for row in rows),
            "sd": statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0,
        }
        for key in rows[0]
    }


def gaps(report: dict) -> dict[str, dict[str, float]]:
    """How many standard deviations (the larger of the two) a system is above CLIP."""
    found = {}
    for name, figures in report.items():
        found[name] = {
            key: (figures[key]["mean"] - base["mean"]) / (max(figures[key]["sd"], base["sd"]) or 1)
            for key, base in report[CLIP].items()
            if "_r" in key
        }
    return found


def main() -> None:
    """Train and score every system with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=4000)
    parser.add_argument("--duplicates", type=float, default=0.5, help="share of duplicates")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64, help="pairs per step")
    parser.add_argument("--group", type=int, default=2, help="listings of a product per batch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    arguments = parser.parse_args()
    products = load(arguments.products, arguments.duplicates)
    print({name: len(rows) for name, rows in products.items()})
    options = {
        "epochs": arguments.epochs,
        "stream_pairs": arguments.batch,
        "group": arguments.group,
    }
    report = {}
    for name in arguments.systems:
        rows = [
            run(SYSTEMS[name], products, seed=seed, options=options)
            for seed in range(arguments.seeds)
        ]
        report[name] = summary(rows)
        line = "  ".join(f"{k} {v['mean']:.1f} +- {v['sd']:.1f}" for k, v in report[name].items())
        print(f"{name:18s} {line}", flush=True)
    found = {"systems": report}
    if CLIP in report:
        found["sd_above_clip"] = gaps(report)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
