"""Recipes: TOML files that a job reads by name, path or URI, with `--set a.b=value` overrides.

Whatever is wrong with one is said in one line that names the recipe, the key and what was expected.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from pipelines.lake.storage import Storage

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
TRAINING = "train"
_LONGEST_VALUE = 60

Config = TypeVar("Config", bound=BaseModel)


def read_recipe(
    kind: type[Config],
    name: str,
    overrides: Sequence[str] = (),
    *,
    example: str,
    options: Mapping[str, str] | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Return a recipe of one kind, shipped or from any storage.

    `changes` are laid over its sections before the overrides; `example` is an override to name in
    messages.
    """
    wanted = str(kind.model_fields["kind"].default)
    document = _read_document(name, wanted, options)
    if (found := document.get("kind", TRAINING)) != wanted:
        raise ValueError(f"recipe {name} has kind {found!r}, expected {wanted!r}; name another one")
    for section, values in (changes or {}).items():
        document.setdefault(section, {}).update(values)
    for override in overrides:
        apply_override(document, override, example=example)
    return checked(kind, document, of=f"recipe {name}")


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


def checked(kind: type[Config], document: Mapping[str, Any], *, of: str) -> Config:
    """Return the document as a config; a ValueError that begins with `of` names the first fault."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"{of}: {_first_problem(error, kind)}") from error


def dump_recipe(recipe: BaseModel) -> str:
    """Return the resolved recipe as TOML; unset values are left out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def recipe_names(kind: str = TRAINING) -> list[str]:
    """Return the names of the shipped recipes of one kind."""
    names = []
    for path in sorted(RECIPES.glob("*.toml")):
        if tomllib.loads(path.read_text(encoding="utf-8")).get("kind", TRAINING) == kind:
            names.append(path.stem)
    return names


def _read_document(name: str, kind: str, options: Mapping[str, str] | None) -> dict[str, Any]:
    shipped = RECIPES / f"{name}.toml"
    place = Storage.of(shipped if shipped.is_file() else name, options)
    missing = (
        f"found no recipe {name!r}, expected a .toml file or one of: "
        f"{', '.join(recipe_names(kind))}"
    )
    if not place.name.endswith(".toml"):
        raise ValueError(missing)
    try:
        return tomllib.loads(place.read_bytes().decode())
    except FileNotFoundError as error:
        raise ValueError(missing) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {place.uri} is not TOML: {error}") from error


def _first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    places, known = _resolved(kind, first["loc"])
    place = ".".join(places)
    if first["type"] == "extra_forbidden":
        return _unknown_key(places, known)
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    if first["type"] == "missing":
        return f"{place} is missing, expected a value"
    if first["type"] == "union_tag_invalid":
        found = first["ctx"]
        name = found["discriminator"].strip("'")
        return f"{place}.{name} is {found['tag']!r}, expected {found['expected_tags']}"
    value = "a section" if isinstance(first["input"], dict) else repr(first["input"])
    return f"{place} is {_shortened(value)}, expected {_expectation(first['msg'])}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _expectation(message: str) -> str:
    """Return what pydantic wants, without what it says of the value."""
    wanted = message.partition(" should ")[2].partition(", unable")[0]
    return wanted.removeprefix("be ") if wanted.startswith("be ") else f"to {wanted}"


def _unknown_key(places: Sequence[str], known: Sequence[str]) -> str:
    *section, name = places
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown key {'.'.join(places)}; did you mean {'.'.join([*section, *near])}?"
    return (
        f"unknown key {'.'.join(places)}; {'.'.join(section) or 'a recipe'} has {', '.join(known)}"
    )


def _resolved(kind: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """Return the key as a recipe spells it, and the keys that stand beside it.

    A location names the member of a union that was tried; no recipe does.
    """
    places: list[str] = []
    annotations: list[Any] = [kind]
    beside: list[str] = []
    for part in location:
        models = [model for found in annotations for model in _models(found)]
        tagged = [model for model in models if part in _tags(model)]
        if len(models) > 1 and tagged:
            annotations = list(tagged)
            continue
        places.append(str(part))
        beside = [name for model in models for name in model.model_fields]
        fields = [model.model_fields.get(str(part)) for model in models]
        found = [field.annotation for field in fields if field is not None]
        # Below a field, or the values of a dict or tuple.
        annotations = found or [inner for outer in annotations for inner in get_args(outer)]
    return places, list(dict.fromkeys(beside))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield a model, or those that a union is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    if isinstance(annotation, type) and annotation is not NoneType:
        return
    for inner in get_args(annotation):
        yield from _models(inner)


def _tags(model: type[BaseModel]) -> set[object]:
    """Return what pydantic may call a member of a union: its name, or its fixed `kind`."""
    fixed = {
        field.default for field in model.model_fields.values() if isinstance(field.default, str)
    }
    return {model.__name__, *fixed}
