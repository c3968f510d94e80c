"""e-CLIP recipes: `kind = "eclip"`, a whole pre-training run as one TOML file."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator

from pipelines.command.recipes import read_recipe
from pipelines.train.runs import CourseConfig, RunRecipe
from ulsdram_core.eclip.dual_encoder import DualEncoderConfig
from ulsdram_core.eclip.parts import EclipConfig
from ulsdram_core.eclip.pretraining import PretrainConfig
from ulsdram_core.image import ImageConfig

ECLIP = "eclip"


class PretrainCourse(CourseConfig):
    """How a pre-training run is read, saved and ended."""

    pool_pairs: int = Field(
        4096,
        ge=2,
        description="pairs of a worker shuffled together, at least a batch of max_streams; their "
        "pixels are in memory",
    )
    checkpoint_steps: int = Field(50, ge=1, description="steps between checkpoints")
    vocab_size: int = Field(
        8000, ge=100, description="pieces of a tokenizer built from the data (text_encoder tiny)"
    )


class EclipRecipe(RunRecipe):
    """A pre-training run, complete."""

    kind: str = Field(ECLIP, pattern="^eclip$", description="what the recipe is for")
    model: DualEncoderConfig = Field(
        default_factory=DualEncoderConfig, description="the two encoders"
    )
    image: ImageConfig = Field(default_factory=ImageConfig, description="how pictures are read")
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig, description="optimisation")
    run: PretrainCourse = Field(default_factory=PretrainCourse, description="course of the run")
    catalog_column: str | None = Field(
        "catalog_id", description="column that tells which listings are one product; null: none"
    )

    @model_validator(mode="after")
    def _batch_fits_the_pool(self) -> Self:
        streams = self.pretrain.growth.max_streams
        size = streams * self.pretrain.stream_pairs
        if size > self.run.pool_pairs:
            raise ValueError(
                f"a worker's batch may grow to {size} pairs (pretrain.growth.max_streams {streams} "
                f"x pretrain.stream_pairs {self.pretrain.stream_pairs}), expected at most "
                f"run.pool_pairs, {self.run.pool_pairs}; raise run.pool_pairs or lower one of them"
            )
        return self

    def config(self) -> EclipConfig:
        """Return what the model directory keeps of it."""
        return EclipConfig(model=self.model, text=self.text, image=self.image)


def load_eclip_recipe(
    name: str, overrides: Sequence[str] = (), *, options: Mapping[str, str] | None = None
) -> EclipRecipe:
    """Return a recipe by the name of a shipped one, by path or URI, with `a.b=value` overrides."""
    return read_recipe(EclipRecipe, name, overrides, example="pretrain.epochs=2", options=options)
