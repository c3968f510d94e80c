"""The section of a page that its script fills with product cards."""

from collections.abc import Sequence

from pipelines.report.markup import Markup, joined, tag

_NEEDS_SCRIPT = "The product cards are drawn by the page's script, which is switched off here."


def card_list(*, kind: str = "") -> Markup:
    """Return a place for cards without filters; `kind` is wide or pairs."""
    return joined(
        tag("div", id="cards", class_=kind or None),
        tag("button", "Show more", type="button", id="more", hidden=True),
        tag("noscript", tag("p", _NEEDS_SCRIPT)),
    )


def filtered_cards(
    *,
    attributes: Sequence[str],
    statuses: Sequence[str],
    kinds: Sequence[tuple[str, str]],
    heatmaps: bool | None,
    kind: str = "",
) -> Markup:
    """Return filters (text, attribute, status, confidence, kind, order), the count, the cards.

    `heatmaps`: whether they are shown at first; None where there are none.
    """
    fields = [
        tag(
            "label",
            "Search",
            tag("input", type="search", name="text", autocomplete="off", placeholder="any text"),
            class_="grow",
        ),
        _select("Attribute", "attribute", [("", "any"), *((name, name) for name in attributes)]),
        _select("Status", "status", [("", "any"), *((name, name) for name in statuses)]),
        tag(
            "fieldset",
            tag("legend", "Confidence, %"),
            _number("from", 0, "Confidence from, in percent"),
            tag("span", "to", aria_hidden="true"),
            _number("to", 100, "Confidence to, in percent"),
        ),
        _select("Show", "kind", kinds),
        _select(
            "Order",
            "order",
            [("given", "mixed"), ("unsure", "least certain first"), ("id", "by id")],
        ),
    ]
    if heatmaps is not None:
        box = tag("input", type="checkbox", name="heatmaps", checked=heatmaps, autocomplete="off")
        fields.append(tag("label", box, "Heatmaps", class_="check"))
    fields.append(tag("button", "Reset", type="reset"))
    return joined(
        tag("form", fields, id="filters", role="search", aria_label="Filter products"),
        tag("p", id="found", role="status", aria_live="polite"),
        card_list(kind=kind),
    )


def _select(label: str, name: str, options: Sequence[tuple[str, str]]) -> Markup:
    choices = [tag("option", text, value=value) for value, text in options]
    return tag("label", label, tag("select", choices, name=name, autocomplete="off"))


def _number(name: str, value: int, label: str) -> Markup:
    return tag(
        "input", type="number", name=name, value=value, min=0, max=100, step=5,
        inputmode="numeric", autocomplete="off", aria_label=label,
    )  # fmt: skip
