"""Charts as inline SVG, drawn to stand in table cells: numbers stay numbers beside them."""

from collections.abc import Sequence

from pipelines.report.markup import Markup, tag

BAR_WIDTH, BAR_HEIGHT = 160, 12
PLOT_WIDTH, PLOT_HEIGHT, PLOT_MARGIN = 520, 200, 32


def bar(share: float, *, kind: str = "bar") -> Markup:
    """Return a horizontal bar for a share of 0 to 1; decoration, the number stands beside it."""
    width = round(BAR_WIDTH * min(max(share, 0.0), 1.0), 1)
    return _svg(
        BAR_WIDTH,
        BAR_HEIGHT,
        _rect(0, 0, BAR_WIDTH, BAR_HEIGHT, "track"),
        _rect(0, 0, width, BAR_HEIGHT, kind),
        kind="inline",
    )


def shift(change: float, *, largest: float) -> Markup:
    """Return a bar to the left (less) or right (more) of a middle line."""
    middle = BAR_WIDTH / 2
    length = round(middle * min(abs(change) / largest, 1.0), 1) if largest else 0.0
    start = middle if change >= 0 else middle - length
    return _svg(
        BAR_WIDTH,
        BAR_HEIGHT,
        _rect(0, 0, BAR_WIDTH, BAR_HEIGHT, "track"),
        _rect(start, 0, length, BAR_HEIGHT, "more" if change >= 0 else "less"),
        _rect(middle - 0.5, 0, 1, BAR_HEIGHT, "axis"),
        kind="inline",
    )


def histogram(
    counts: Sequence[int], *, label: str, right_shares: Sequence[float | None] = ()
) -> Markup:
    """Return columns of counts in equal bins of 0 to 1; dots for the share that is right."""
    top, inner = max(counts, default=0) or 1, PLOT_HEIGHT - PLOT_MARGIN
    step = (PLOT_WIDTH - 2 * PLOT_MARGIN) / max(len(counts), 1)
    parts = []
    for place, count in enumerate(counts):
        height = (inner - 14) * count / top
        x = PLOT_MARGIN + place * step
        parts.append(_rect(x + 2, inner - height, step - 4, height, "bar"))
        parts.append(_text(x + step / 2, inner - height - 4, f"{count:,}", "count"))
    for place in range(len(counts) + 1):
        x = PLOT_MARGIN + place * step
        parts.append(_text(x, PLOT_HEIGHT - 14, f"{place / len(counts):.1f}", "tick"))
    parts.append(_rect(PLOT_MARGIN, inner, PLOT_WIDTH - 2 * PLOT_MARGIN, 1, "axis"))
    parts += _dots(right_shares, step=step, inner=inner - 14)
    return _svg(PLOT_WIDTH, PLOT_HEIGHT, *parts, kind="plot", label=label)


def _dots(shares: Sequence[float | None], *, step: float, inner: float) -> list[Markup]:
    return [
        tag("circle", cx=round(PLOT_MARGIN + (place + 0.5) * step, 1),
            cy=round(14 + inner * (1 - share), 1), r=5, class_="dot")
        for place, share in enumerate(shares)
        if share is not None
    ]  # fmt: skip


def _svg(width: int, height: int, *parts: Markup, kind: str, label: str | None = None) -> Markup:
    return tag(
        "svg",
        parts,
        viewBox=f"0 0 {width} {height}",
        class_=kind,
        role="img" if label else None,
        aria_label=label,
        aria_hidden=None if label else "true",
        focusable="false",
        preserveAspectRatio="none" if kind == "inline" else None,
    )


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    sizes = (round(number, 1) for number in (x, y, width, height))
    return tag("rect", **dict(zip(("x", "y", "width", "height"), sizes, strict=True)), class_=kind)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return tag("text", text, x=round(x, 1), y=round(y, 1), class_=kind)
