"""From duplicate edges to catalogue ids and repeated pairs."""

from dataclasses import dataclass

import numpy as np

from pipelines.prepare.pairs.duplicates import (
    EXACT_KINDS,
    KINDS,
    DuplicateConfig,
    Edges,
    StoredTraces,
)

_ODD = np.uint64(0x9E3779B97F4A7C15)
_REPORTED = {
    "equal_picture": "picture",
    "given_catalog_id": "catalog",
    "long_title": "title",
    "look_alike": "look_alike",
}


@dataclass(frozen=True)
class Groups:
    """Which rows list one product; counts for the report."""

    labels: np.ndarray
    """[N] the first row of each row's group; its own number for a row without duplicates."""
    counts: dict[str, int]


class Ties:
    """Edges folded into groups as they are found: 20 bytes a row, whatever the number of edges."""

    def __init__(self, num_rows: int) -> None:
        self._exact = np.arange(num_rows)
        """[N] groups by exact ties alone."""
        self._labels = np.arange(num_rows)
        self._is_tied = {kind: np.zeros(num_rows, bool) for kind in KINDS}
        self._compared = self._cut_short = 0

    def add(self, kind: str, edges: Edges) -> None:
        """Take edges of one of KINDS; the same edge may come again."""
        self._is_tied[kind][edges.pairs] = True
        self._labels = merge(self._labels, edges.pairs)
        if kind in EXACT_KINDS:
            self._exact = merge(self._exact, edges.pairs)
        self._compared += edges.compared
        self._cut_short += edges.cut_short

    def groups(self, config: DuplicateConfig) -> Groups:
        """Return all ties; groups that look-alikes blow up fall back to their exact ties."""
        is_huge = component_sizes(self._labels) > config.max_group
        labels = np.where(is_huge, self._exact, self._labels)
        sizes = component_sizes(labels)
        tied = {name: self._is_tied[kind] for name, kind in _REPORTED.items()}
        counts = {
            **{f"tied_by_{name}": int(is_tied.sum()) for name, is_tied in tied.items()},
            "look_alikes_of_too_large_groups": int((is_huge & tied["look_alike"]).sum()),
            "groups": int((sizes[labels == np.arange(len(labels))] > 1).sum()),
            "rows_in_groups": int((sizes > 1).sum()),
            "largest_group": int(sizes.max()) if len(sizes) else 0,
            "perceptual_comparisons": self._compared,
            "comparisons_cut_short": self._cut_short,
        }
        return Groups(labels, counts)


def repeated_rows(traces: StoredTraces) -> np.ndarray:
    """Return [N] bool: rows whose picture and words both stood in an earlier usable row."""
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
    """Return [N] bool: rows whose picture stands under `num_titles` different titles or more."""
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


def merge(labels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return [N] the smallest row of each row's component, with more edges [E, 2] of rows added.

    `labels` is such a result, or arange(N) where no row is joined yet.

    Union-find with all edges at once: roots hang below the smallest root they touch, then every
    row is moved to its root; a few rounds suffice. 8 bytes a row, 16 an edge.
    """
    parents = labels.copy()
    while len(edges):
        roots = parents[edges]
        is_open = roots[:, 0] != roots[:, 1]
        edges, roots = edges[is_open], roots[is_open]
        np.minimum.at(parents, roots.max(axis=1), roots.min(axis=1))
        while not np.array_equal(above := parents[parents], parents):
            parents = above
    return parents


def component_sizes(labels: np.ndarray) -> np.ndarray:
    """Return [N] numbers of rows, of each row's component."""
    return np.bincount(labels, minlength=len(labels))[labels]
