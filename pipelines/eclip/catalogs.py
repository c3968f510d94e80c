"""From duplicate edges to catalogue ids and repeated pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.eclip.components import component_sizes, components
from pipelines.eclip.duplicates import DuplicateConfig, Edges, StoredTraces

_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Groups:
    """Which rows list one product; counts for the report."""

    labels: np.ndarray
    """[N] the first row of each row's group; its own number for a row without duplicates."""
    counts: dict[str, int]


def group_rows(
    num_rows: int, exact: Sequence[Edges], near: Sequence[Edges], config: DuplicateConfig
) -> Groups:
    """Tie rows by all edges; groups that look-alikes blow up fall back to their exact ties."""
    tied = _stacked(exact)
    # Rows meet under many masks: the same pair comes back many times.
    alike = np.unique(_stacked(near), axis=0)
    labels = components(num_rows, np.concatenate([tied, alike]))
    is_huge = component_sizes(labels) > config.max_group
    dropped = is_huge[alike[:, 0]] if len(alike) else np.zeros(0, bool)
    if dropped.any():
        labels = components(num_rows, np.concatenate([tied, alike[~dropped]]))
    sizes = component_sizes(labels)
    counts = {
        "exact_ties": len(tied),
        "perceptual_ties": len(alike),
        "perceptual_ties_dropped": int(dropped.sum()),
        "groups": int((sizes[labels == np.arange(num_rows)] > 1).sum()),
        "rows_in_groups": int((sizes > 1).sum()),
        "largest_group": int(sizes.max()) if num_rows else 0,
    }
    return Groups(labels, counts)


def _stacked(found: Sequence[Edges]) -> np.ndarray:
    return np.concatenate([np.empty((0, 2), np.int64), *(edges.pairs for edges in found)])


def repeated_rows(traces: StoredTraces) -> np.ndarray:
    """[N] bool: rows whose picture and words both stood in an earlier usable row."""
    columns = ("row", "picture_hi", "picture_lo", "title_hi", "title_lo", "is_usable")
    keys = np.zeros((traces.num_rows, 2), np.uint64)
    is_usable = np.zeros(traces.num_rows, bool)
    for batch in traces.batches(columns):
        rows = batch["row"]
        for place, half in enumerate(("hi", "lo")):
            # Both are digests; an odd factor keeps equal halves from cancelling each other.
            keys[rows, place] = batch[f"picture_{half}"] ^ (batch[f"title_{half}"] * _ODD)
        is_usable[rows] = batch["is_usable"] & ((batch["picture_hi"] | batch["picture_lo"]) != 0)
    order = np.lexsort((np.arange(traces.num_rows), keys[:, 1], keys[:, 0], ~is_usable))
    is_same = (keys[order[1:]] == keys[order[:-1]]).all(1)
    is_same &= is_usable[order[1:]] & is_usable[order[:-1]]
    repeated = np.zeros(traces.num_rows, bool)
    repeated[order[1:][is_same]] = True
    return repeated


def placeholder_rows(traces: StoredTraces, num_titles: int) -> np.ndarray:
    """[N] bool: rows whose picture stands under `num_titles` different titles or more."""
    columns = ("row", "picture_hi", "picture_lo", "title_hi")
    keys = np.zeros((traces.num_rows, 3), np.uint64)
    for batch in traces.batches(columns):
        for place, name in enumerate(columns[1:]):
            keys[batch["row"], place] = batch[name]
    order = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    is_new_picture = np.ones(len(order), bool)
    is_new_picture[1:] = (ordered[1:, :2] != ordered[:-1, :2]).any(1)
    is_new_title = is_new_picture.copy()
    is_new_title[1:] |= ordered[1:, 2] != ordered[:-1, 2]
    picture = np.cumsum(is_new_picture) - 1
    titles = np.bincount(picture, weights=is_new_title)
    found = np.zeros(traces.num_rows, bool)
    found[order] = (titles[picture] >= num_titles) & (ordered[:, :2] != 0).any(1)
    return found
