"""One loader of recipes: where they come from, and how it says what is wrong with one."""

from functools import partial
from typing import Annotated, Literal

import fsspec
import pytest
from pydantic import BaseModel, ConfigDict, Field

from pipelines.benchmark.paper.plan import plan_run
from pipelines.benchmark.paper.settings import load_benchmark
from pipelines.command.recipes import checked
from pipelines.nightly.settings import load_nightly_config
from pipelines.train.eclip.recipe import load_eclip_recipe
from pipelines.train.extractor.recipe import load_recipe

LOADERS = {
    "tiny": load_recipe,
    "eclip_tiny": load_eclip_recipe,
    "nightly": load_nightly_config,
    "benchmark": partial(load_benchmark, encoders={}),
}


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("tiny", "fit.epoch=3", "unknown key fit.epoch; did you mean fit.epochs?"),
        ("tiny", "fitt.epochs=3", "unknown key fitt; did you mean fit?"),
        ("tiny", "image.sizes=64", "unknown key image.sizes; did you mean image.size?"),
        ("tiny", "fit.optim.zzz=1", "unknown key fit.optim.zzz; fit.optim has kind, "),
        ("tiny", "zzz.zzz=1", "unknown key zzz; a recipe has description, "),
        ("tiny", "fit.epochs=-1", "fit.epochs is -1, expected greater than or equal to 1"),
        ("tiny", "fit.epochs=many", "fit.epochs is 'many', expected a valid integer"),
        ("tiny", "fit=3", "fit is 3, expected a valid dictionary"),
        (
            "eclip_tiny",
            "pretrain.epoch=1",
            "unknown key pretrain.epoch; did you mean pretrain.epochs?",
        ),
        ("eclip_tiny", "run.pool_pairs=1", "run.pool_pairs is 1, expected greater than or equal"),
        ("nightly", "chunk.rows=1", "unknown key chunk; did you mean chunks?"),
        ("nightly", "gate.zzz=1", "unknown key gate.zzz; gate has min_rows, "),
        ("nightly", "executor=rai", "executor is 'rai', expected 'ray' or 'local'"),
        ("benchmark", "settings.epoch=1", "unknown key settings.epoch; did you mean settings.epo"),
        ("benchmark", "systems.uls_l.txt=main", "unknown key systems.uls_l.txt; did you mean sys"),
        ("benchmark", "systems.new.text=main", "systems.new.label is missing, expected a value"),
    ],
)
def test_what_is_wrong_is_said_in_one_style(name, override, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole beginning is compared
        LOADERS[name](name, [override])
    assert str(caught.value).startswith(f"recipe {name}: {message}")


def test_sections_that_a_system_lays_over_others_are_checked_too():
    config = load_benchmark(overrides=["systems.uls_l.model.hed=paper"], encoders={})
    message = "^system uls_l: unknown key model.hed; did you mean model.head\\?$"
    with pytest.raises(ValueError, match=message):
        plan_run(config, "uls_l", seed=0)


@pytest.mark.parametrize("name", LOADERS)
def test_any_recipe_comes_from_any_storage(name):
    shipped = LOADERS[name](name)
    fsspec.filesystem("memory").pipe("/recipes/own.toml", _toml(shipped))
    assert LOADERS[name]("memory://recipes/own.toml") == shipped


@pytest.mark.parametrize("name", LOADERS)
def test_a_recipe_that_is_not_there_is_named_with_those_that_are(name):
    for wanted in ("nope", "memory://recipes/nope.toml"):
        with pytest.raises(ValueError, match=f"found no recipe '{wanted}', expected .*{name}"):
            LOADERS[name](wanted)


def _toml(recipe):
    from pipelines.command.recipes import dump_recipe

    return dump_recipe(recipe).encode()


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Circle(_Strict):
    kind: Literal["circle"] = "circle"
    radius: int = 1


class _Box(_Strict):
    kind: Literal["box"] = "box"
    width: int = 1


class _Drawing(_Strict):
    shape: Annotated[_Circle | _Box, Field(discriminator="kind")] = _Circle()
    shapes: dict[str, Annotated[_Circle | _Box, Field(discriminator="kind")]] = {}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"shape": {"kind": "box", "with": 1}},
            "unknown key shape.with; did you mean shape.width?",
        ),
        ({"shape": {"kind": "box", "radius": 1}}, "unknown key shape.radius; shape has kind, wid"),
        ({"shape": {"kind": "bix"}}, "shape.kind is 'bix', expected 'circle', 'box'"),
        ({"shapes": {"a": {"kind": "circle", "radius": []}}}, "shapes.a.radius is [], expected a "),
    ],
)
def test_members_of_a_union_are_told_apart(document, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole beginning is compared
        checked(_Drawing, document, of="drawing")
    assert str(caught.value).startswith(f"drawing: {message}")
