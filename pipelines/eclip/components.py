"""Connected components: which rows duplicate edges tie together."""

import numpy as np


def components(num_rows: int, edges: np.ndarray) -> np.ndarray:
    """[N] the smallest row of each row's component; `edges` is [E, 2] int64 of rows."""
    return merge(np.arange(num_rows, dtype=np.int64), edges)


def merge(labels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """[N] components as `components` gives them, with more edges [E, 2] added.

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
    """[N] how many rows each row's component has."""
    return np.bincount(labels, minlength=len(labels))[labels]
