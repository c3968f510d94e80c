"""Pools: rows of a worker that are shuffled together, cut elsewhere in every epoch."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

PARTS = 4
# Parts in an epoch's first pool, so that a pool of the next epoch straddles two of this one.
_FIRST = (4, 2, 3, 1)


def part_rows(pool_rows: int) -> int:
    """Return rows of a part, rounded up: a pool is never smaller than asked for."""
    return -(-pool_rows // PARTS)


def pools_of(parts: Iterable[pa.Table], epoch: int) -> Iterator[pa.Table]:
    """Join parts, in order, to the pools of an epoch (from 1); the first may be a small one.

    The cut depends on the epoch alone, so a resumed run meets the same pools.
    """
    held: list[pa.Table] = []
    wanted = _FIRST[(epoch - 1) % len(_FIRST)]
    for part in parts:
        held.append(part)
        if len(held) == wanted:
            yield pa.concat_tables(held)
            held, wanted = [], PARTS
    if held:
        yield pa.concat_tables(held)
