"""The model card: what a model is, what it was trained on, how good it is."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipelines.command.markdown import markdown_table
from pipelines.train.extractor.recipe import Recipe
from ulsdram_core.parts import ModelParts


def model_card(parts: ModelParts, recipe: Recipe, summary: Mapping[str, Any]) -> str:
    """Return README.md of a model directory."""
    valid = summary["valid"]
    model = recipe.model
    picture = "none (text only)"
    if model.image_encoder is not None and recipe.image is not None:
        size = recipe.image.size
        picture = f"{model.image_encoder.architecture}, {size}x{size} pixels"
    shares = ("precision", "recall", "f1")
    figures = ", ".join(f"{100 * valid[name]:.2f}" for name in shares)
    facts = [
        ("text encoder", model.text_encoder.name),
        ("pictures", picture),
        (
            "fusion, policy, tagger",
            f"{model.fusion.kind}, {model.policy.kind}, {model.tagger.kind}",
        ),
        ("text columns", ", ".join(recipe.text.sources)),
        ("attributes", _listed(parts.labels.attributes)),
        ("of these with one value per product", _listed(parts.labels.single)),
        ("epochs, steps", f"{summary['epochs']}, {summary['steps']}"),
        ("seed", recipe.fit.seed),
        (
            "validation precision, recall, F1, before calibration",
            f"{figures} (epoch {valid['epoch']:.0f})",
        ),
        ("calibration error", f"{100 * summary['calibration_error']:.2f}"),
        ("range threshold", summary["threshold"]),
        ("lowest confidence of a value", _limit(parts.config.thresholds.value.values())),
    ]
    sweep = [
        (f"{row['threshold']:.2f}", *(f"{100 * row[name]:.2f}" for name in shares))
        for row in summary["threshold_sweep"]
    ]
    return f"""# Attribute value extractor {summary["model_id"]}
{recipe.description}

{markdown_table(("", ""), facts)}

Values are spans copied from the text; what the text does not say is never extracted. Figures are
for validation products drawn like the training products; other catalogues need their own check
(`jobs/evaluate.py`).

Range threshold on the validation split:

{markdown_table(("S_thr", "P", "R", "F1"), sweep)}
"""


def _listed(names: Sequence[str], most: int = 40) -> str:
    more = len(names) - most
    told = ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)}: {told}" if names else "none"


def _limit(limits: Collection[float]) -> str:
    found = sorted(set(limits))
    if not found:
        return "none"
    return f"{found[0]}" if len(found) == 1 else "by attribute, see config.json"
