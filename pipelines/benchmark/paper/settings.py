"""The benchmark's recipe: settings and systems, read from TOML with overrides."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from pipelines.command.recipes import read_recipe
from pipelines.lake.tables import Columns
from ulsdram_core.baselines.kplug import KplugConfig
from ulsdram_core.baselines.value_ranker import RankerConfig
from ulsdram_core.encoders.image_encoder import ImageEncoderConfig
from ulsdram_core.encoders.text_encoder import TextEncoderConfig
from ulsdram_core.frozen import Frozen
from ulsdram_core.text import TextConfig

BENCHMARK = "benchmark"


class Settings(Frozen):
    """What all systems share."""

    epochs: int = Field(ge=1, description="epochs of systems that fine-tune a text encoder")
    batch_size: int = Field(ge=1, description="windows per step")
    picture_size: int = Field(ge=16, description="side of a picture in pixels")
    picture_dropout: float = Field(ge=0, lt=1, description="share of pictures hidden in training")
    threshold: float = Field(ge=0, le=1, description="S_thr of systems with a range")
    vocab_size: int = Field(ge=100, description="pieces of a tokenizer built from the texts")
    min_count: int = Field(ge=1, description="products an attribute must occur in")
    test_limit: int = Field(ge=1, description="most test products scored")
    demo_products: int = Field(ge=20, description="products drawn for --data demo")
    unlabelled_limit: int = Field(ge=1, description="most texts K-PLUG is pre-trained on")
    text_encoder: TextEncoderConfig = Field(description="the text encoder")
    second_text_encoder: TextEncoderConfig = Field(description="Table 1's other text encoder")
    image_encoder: ImageEncoderConfig = Field(description="the image encoder")
    words: TextEncoderConfig = Field(description="the RNN systems' encoder")


class EncoderRates(Frozen):
    """Learning rates of encoders that start alike."""

    text: float = Field(gt=0, description="of the text encoder")
    image: float = Field(gt=0, description="of the image encoder")


class Rates(Frozen):
    """Learning rates of the encoders."""

    scratch: EncoderRates = Field(description="of encoders with random weights")
    pretrained: EncoderRates = Field(description="of encoders that start from a checkpoint")


class Sections(Frozen):
    """Parts of a recipe that are laid over what all systems share."""

    model: dict[str, Any] = Field(default_factory=dict, description="model section of a recipe")
    range: dict[str, Any] = Field(default_factory=dict, description="range section of a recipe")
    fit: dict[str, Any] = Field(default_factory=dict, description="fit section of a recipe")


class SystemConfig(Sections):
    """One compared system: which parts it is made of."""

    label: str = Field(description="name in the tables")
    kind: Literal["tagger", "kplug", "ranker", "spacy"] = Field(
        "tagger",
        description="tagger: parts of the model; kplug: its text encoder is pre-trained first; "
        "ranker: MAE-model; spacy: the peer from outside",
    )
    text: Literal["main", "second", "words"] = Field("main", description="which text encoder")
    pictures: bool = Field(False, description="whether it sees pictures")
    epoch_factor: int = Field(1, ge=1, description="epochs, as a multiple of settings.epochs")
    aligned: bool = Field(False, description="whether [aligned] is laid over it too")
    sweep: bool = Field(False, description="also score every S_thr of Fig. 8")


class BenchmarkConfig(Frozen):
    """The whole benchmark recipe."""

    kind: str = Field(BENCHMARK, pattern="^benchmark$", description="what the recipe is for")
    description: str = Field("", description="one line for people")
    settings: Settings = Field(description="what all systems share")
    text: TextConfig = Field(default_factory=TextConfig, description="how texts are read")
    columns: Columns = Field(default_factory=Columns, description="columns of the products table")
    rates: Rates = Field(description="learning rates of the encoders")
    optim: dict[str, Any] = Field(default_factory=dict, description="other optimiser settings")
    fusion: dict[str, Any] = Field(
        default_factory=dict, description="fusion settings of all systems that see pictures"
    )
    tir: Sections = Field(
        default_factory=Sections, description="laid over all systems whose fusion is TIR"
    )
    aligned: Sections = Field(
        default_factory=Sections, description="laid over the systems named as aligned"
    )
    kplug: KplugConfig = Field(default_factory=KplugConfig, description="K-PLUG's pre-training")
    ranker: RankerConfig = Field(default_factory=RankerConfig, description="MAE-model")
    systems: dict[str, SystemConfig] = Field(description="the systems, by name")


def load_benchmark(
    name: str = BENCHMARK,
    overrides: Sequence[str] = (),
    *,
    encoders: Mapping[str, Any],
    options: Mapping[str, str] | None = None,
) -> BenchmarkConfig:
    """Return a recipe by name, path or URI; `encoders` replaces those of its settings."""
    return read_recipe(
        BenchmarkConfig,
        name,
        overrides,
        example="settings.epochs=3",
        options=options,
        changes={"settings": encoders},
    )


def parse_image_encoder(text: str) -> dict[str, str]:
    """Read ARCHITECTURE or ARCHITECTURE@WEIGHTS, as --image-encoder takes it."""
    architecture, separator, weights = text.partition("@")
    if not architecture or (separator and not weights):
        raise ValueError(
            f"--image-encoder {text!r}: expected ARCHITECTURE or ARCHITECTURE@WEIGHTS, such as "
            "resnet152@enum:ResNet152_Weights.IMAGENET1K_V2"
        )
    return {"architecture": architecture, **({"weights": weights} if weights else {})}
