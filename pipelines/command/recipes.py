"""`--set a.b=value`: one override of a recipe's document."""

import tomllib
from typing import Any


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
