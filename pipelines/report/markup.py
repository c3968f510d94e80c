"""HTML that is safe by construction: plain text is escaped, only `Markup` is taken as written."""

import html
import json
from collections.abc import Iterable
from typing import Any

_VOID = ("br", "col", "hr", "img", "input", "meta")


class Markup(str):
    """Finished HTML; everything else is text and gets escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str | Iterable[str], **attributes: Any) -> Markup:
    """Return an element. `class_` and `for_` lose the underscore, other underscores become dashes.

    An attribute that is None or False is left out, True stands without a value.
    """
    opening = f"<{name}{''.join(_attribute(k, v) for k, v in attributes.items())}>"
    if name in _VOID:
        return Markup(opening)
    return Markup(f"{opening}{joined(*children)}</{name}>")


def joined(*children: str | Iterable[str]) -> Markup:
    """Return the children one after the other."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(html.escape(child))
        else:
            parts.append(str(joined(*child)))
    return Markup("".join(parts))


def json_island(content: Any) -> Markup:
    """Return JSON for a `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
