"""Recipes: a whole training run as one TOML file, plus `key=value` overrides."""

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from pipelines.command.recipes import TRAINING, read_recipe
from pipelines.labelled.label_config import LabelConfig
from pipelines.train.runs import CourseConfig, RunRecipe
from ulsdram_core.fit.fitting import FitConfig
from ulsdram_core.frozen import Frozen
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.pairs import RangeConfig


class ExtractorCourse(CourseConfig):
    """How a training run is watched, saved and ended."""

    accumulate: int = Field(1, ge=1, description="micro-batches per optimiser step")
    pool_batches: int = Field(
        32, ge=1, description="batches' worth of products shuffled and sorted by length together"
    )
    patience: int | None = Field(
        None, ge=1, description="epochs without a better validation F1 before stopping"
    )


class CalibrationConfig(Frozen):
    """What is settled on the validation split after training."""

    choose_threshold: bool = Field(
        False, description="take the S_thr with the best validation F1 instead of the recipe's"
    )
    choose_confidence: bool = Field(
        False,
        description="instead of S_thr, settle the lowest confidence of a value by the best "
        "validation F1; attributes are then left to pass with a score of .1",
    )
    target_precision: float | None = Field(
        None, gt=0, lt=1, description="precision each attribute's values must reach"
    )

    @model_validator(mode="after")
    def _settles_once(self) -> "CalibrationConfig":
        others = self.choose_threshold or self.target_precision is not None
        if self.choose_confidence and others:
            raise ValueError(
                "choose_confidence stands beside choose_threshold or target_precision, expected "
                "one rule for what is extracted; keep one"
            )
        return self


class Recipe(RunRecipe):
    """A training run, complete."""

    kind: str = Field(TRAINING, pattern="^train$", description="what the recipe is for")
    model: ModelConfig = Field(description="parts of the model")
    range: RangeConfig = Field(default_factory=RangeConfig, description="the attribute range")
    labels: LabelConfig = Field(default_factory=LabelConfig, description="the attributes")
    fit: FitConfig = Field(default_factory=FitConfig, description="optimisation")
    run: ExtractorCourse = Field(default_factory=ExtractorCourse, description="course of the run")
    calibration: CalibrationConfig = Field(
        default_factory=CalibrationConfig, description="thresholds"
    )

    @model_validator(mode="after")
    def _loss_fits(self) -> "Recipe":
        kind = self.model.fusion.kind
        if self.fit.loss.alignment_weight and kind != "tir":
            raise ValueError(
                f"fit.loss.alignment_weight trains TIR, found model.fusion.kind {kind!r}; add "
                "--set fit.loss.alignment_weight=0, or set model.fusion.kind to 'tir'"
            )
        return self


def load_recipe(
    name: str, overrides: Sequence[str] = (), *, options: Mapping[str, str] | None = None
) -> Recipe:
    """Return a recipe by the name of a shipped one, by path or URI, with `a.b=value` overrides."""
    return read_recipe(Recipe, name, overrides, example="fit.epochs=5", options=options)
