"""Recipes: TOML files that a job resolves by name, with `--set a.b=value` overrides."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
TRAINING = "train"
AnyRecipe = TypeVar("AnyRecipe", bound=BaseModel)


def apply_override(document: dict[str, Any], override: str, *, example: str) -> None:
    """Set one `a.b=value` in a nested document; the value is TOML, `null`, or else a string."""
    key, separator, text = override.partition("=")
    *sections, name = key.strip().split(".")
    if not separator or not name or not all(sections):
        raise ValueError(f"--set {override!r}: expected key=value, such as {example}")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise ValueError(f"--set {override!r}: {section} is a value, not a section")
    try:
        document[name] = None if text == "null" else tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        document[name] = text


def read_recipe(
    kind: type[AnyRecipe], name: str, overrides: Sequence[str], *, example: str
) -> AnyRecipe:
    """Read a recipe of any kind; `example` is an override to name in messages."""
    wanted = str(kind.model_fields["kind"].default)
    path = _find(name, wanted)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {path} is not TOML: {error}") from error
    if (found := document.get("kind", TRAINING)) != wanted:
        raise ValueError(f"recipe {name} has kind {found!r}, expected {wanted!r}; name another one")
    for override in overrides:
        apply_override(document, override, example=example)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"recipe {name}: {_first_problem(error, kind)}") from error


def dump_recipe(recipe: BaseModel) -> str:
    """Return the resolved recipe as TOML; unset values are left out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def recipe_names(kind: str = TRAINING) -> list[str]:
    """Names of the shipped recipes of one kind."""
    names = []
    for path in sorted(RECIPES.glob("*.toml")):
        if tomllib.loads(path.read_text(encoding="utf-8")).get("kind", TRAINING) == kind:
            names.append(path.stem)
    return names


def _find(name: str, kind: str) -> Path:
    shipped = RECIPES / f"{name}.toml"
    if shipped.is_file():
        return shipped
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise ValueError(
        f"found no recipe {name!r}, expected a .toml file or one of: "
        f"{', '.join(recipe_names(kind))}"
    )


def _first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        module = kind.__module__.replace(".", "/")
        return f"unknown key {place}; see the field lists in {module}.py"
    return f"{place}: {first['msg']}" if place else first["msg"].removeprefix("Value error, ")
