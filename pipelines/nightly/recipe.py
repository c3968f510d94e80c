"""Nightly recipes: `kind = "nightly"` and the fields of NightlyConfig, as TOML plus overrides."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pipelines.command.recipes import apply_override
from pipelines.lake.storage import Storage
from pipelines.nightly.settings import NightlyConfig

SHIPPED = Path(__file__).resolve().parents[2] / "jobs" / "recipes" / "nightly.toml"
_KIND = "nightly"


def load_nightly_config(recipe: Storage | None, overrides: Sequence[str] = ()) -> NightlyConfig:
    """Read a recipe (the shipped one if None) and apply `a.b=value` overrides."""
    place = recipe or Storage.of(SHIPPED)
    try:
        document = tomllib.loads(place.read_bytes().decode())
    except FileNotFoundError as error:
        raise ValueError(f"found no recipe at {place.uri}; name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {place.uri} is not TOML: {error}") from error
    found = document.pop("kind", None)
    if found != _KIND:
        raise ValueError(f"recipe {place.uri} has kind {found!r}, expected {_KIND!r}")
    for override in overrides:
        apply_override(document, override, example="waves.rows=5000")
    try:
        return NightlyConfig.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"recipe {place.uri}: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    found = (
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False)
    )
    return "; ".join(found)
