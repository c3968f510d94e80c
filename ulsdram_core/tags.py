"""BIO tags of a window's units, and the spans they mean.

A row for one (product window, attribute) pair holds O, B, I. A multi-class row holds O = 0,
B of attribute a = 1 + 2a and I = 2 + 2a. Tags are read as seqeval does by default: an I that
continues nothing opens a span. No span crosses from one source to the next.
"""

# N rows, U units

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ulsdram_core.labels import AlignedSpan
    from ulsdram_core.text import Window

O, B, I = 0, 1, 2  # noqa: E741


class TagSpans(NamedTuple):
    """Spans of many rows, by row and then by start; each field is int64[spans].

    Spans are half-open in the row's units; `attributes` is all zeros for binary tags.
    """

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    attributes: np.ndarray


def pair_tags(spans: Sequence["AlignedSpan"], window: "Window") -> np.ndarray:
    """O, B, I of the given spans (all of one attribute): int64[U].

    It is the window's slice of the product's own tags: a span that began before the window
    goes on as I. Such units lie left of what the window owns, unless the span is longer than
    the overlap.
    """
    return _paint([(span.start_unit, span.end_unit, B, I) for span in spans], window)


def class_tags(spans: Sequence["AlignedSpan"], window: "Window") -> np.ndarray:
    """Multi-class tags of all spans: int64[U]; a later span overwrites an earlier one."""
    painted = [
        (span.start_unit, span.end_unit, 1 + 2 * span.attribute, 2 + 2 * span.attribute)
        for span in spans
    ]
    return _paint(painted, window)


def _paint(spans: list[tuple[int, int, int, int]], window: "Window") -> np.ndarray:
    tags = np.full(window.num_units, O, dtype=np.int64)
    for start, end, begin, inside in spans:
        first, last = start - window.first_unit, end - window.first_unit
        if last <= 0:
            continue
        tags[max(first, 0) : last] = inside
        if 0 <= first < len(tags):
            tags[first] = begin
    return tags


def spans_from_tags(
    tags_U: np.ndarray, sources_U: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Half-open unit spans of one row of O, B, I."""
    sources_1U = None if sources_U is None else np.asarray(sources_U)[None]
    found = batch_spans_from_tags(np.asarray(tags_U)[None], sources_NU=sources_1U)
    return list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))


def spans_from_class_tags(
    tags_U: np.ndarray, sources_U: np.ndarray | None = None
) -> list[tuple[int, int, int]]:
    """(attribute, start, end) of one multi-class row, by start."""
    sources_1U = None if sources_U is None else np.asarray(sources_U)[None]
    found = batch_spans_from_tags(np.asarray(tags_U)[None], sources_NU=sources_1U)
    columns = (found.attributes, found.starts, found.ends)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def batch_spans_from_tags(
    tags_NU: np.ndarray,
    lengths_N: np.ndarray | None = None,
    sources_NU: np.ndarray | None = None,
) -> TagSpans:
    """Spans of padded rows, binary or multi-class, without a Python loop over rows.

    `lengths_N` counts the units of each row (default: all U), what lies beyond is padding;
    `sources_NU` is each unit's source (default: one source).
    """
    tags = np.asarray(tags_NU)
    num_rows, num_units = tags.shape
    inside = tags > O
    if lengths_N is not None:
        inside &= np.arange(num_units) < np.asarray(lengths_N)[:, None]
    attribute = (tags - 1) // 2
    joined = inside[:, 1:] & inside[:, :-1] & (attribute[:, 1:] == attribute[:, :-1])
    if sources_NU is not None:
        joined &= sources_NU[:, 1:] == sources_NU[:, :-1]
    # A unit continues its left neighbour's span if both are of one kind and it is not a B.
    joined &= tags[:, 1:] % 2 == 0
    edge = np.zeros((num_rows, 1), dtype=bool)
    opens = inside & ~np.concatenate((edge, joined), axis=1)
    closes = inside & ~np.concatenate((joined, edge), axis=1)
    rows, starts = np.nonzero(opens)
    return TagSpans(rows, starts, np.nonzero(closes)[1] + 1, attribute[rows, starts])
