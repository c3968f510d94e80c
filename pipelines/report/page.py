"""One self-contained page: styles, script and data inline, nothing fetched, nothing else runs."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from pipelines.report.markup import Markup, joined, json_island, tag


class Section(NamedTuple):
    """A part of the page that the navigation names."""

    key: str
    title: str
    content: Markup


def render_page(
    *,
    title: str,
    subtitle: Sequence[str],
    sections: Sequence[Section],
    data: Mapping[str, Any],
) -> str:
    """Return the HTML document; `data` is what the script draws the cards from."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_fingerprint(script)}'",
            f"style-src '{_fingerprint(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    links = [tag("li", tag("a", s.title, href=f"#{s.key}")) for s in sections]
    navigation = tag("nav", tag("ul", links), aria_label="Sections") if len(sections) > 1 else ""
    banner = tag(
        "header",
        tag("h1", title),
        tag("p", joined(*(tag("span", part) for part in subtitle)), class_="subtitle"),
        navigation,
        class_="banner",
    )
    parts = [
        tag("section", tag("h2", s.title, id=f"{s.key}-title"), s.content,
            id=s.key, aria_labelledby=f"{s.key}-title")
        for s in sections
    ]  # fmt: skip
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#main", class_="skip"),
        banner,
        tag("main", parts, id="main", tabindex="-1"),
        tag("script", json_island(data), type="application/json", id="data"),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return resources.files("pipelines.report").joinpath(name).read_text(encoding="utf-8")


def _fingerprint(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
