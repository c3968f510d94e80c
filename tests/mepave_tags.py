"""MEPAVE's tagged sentences, written: the inverse of what the product reads."""

from collections.abc import Sequence

from ulsdram_core.schema import GoldSpan


def join_tags(sentence: str, gold: Sequence[GoldSpan]) -> str:
    """Write spans, disjoint or nested, back as tags; the inverse of split_tags."""
    marks: list[tuple[int, int, int, str]] = []
    for order, span in enumerate(gold):
        # At one place: close before opening, and of what closes the inner one first.
        marks.append((span.start, 1, order, f"<{span.attribute}>"))
        marks.append((span.end, 0, -order, f"</{span.attribute}>"))
    parts, read = [], 0
    for place, _, _, mark in sorted(marks):
        parts += [sentence[read:place], mark]
        read = place
    return "".join([*parts, sentence[read:]])
