from itertools import pairwise

import pyarrow as pa
import pytest

from pipelines.train.eclip.pools import part_rows, pools_of


def cut(num_rows, pool_rows, epoch) -> list[list[int]]:
    size = part_rows(pool_rows)
    rows = pa.table({"row": list(range(num_rows))})
    parts = [rows.slice(start, size) for start in range(0, num_rows, size)]
    return [pool["row"].to_pylist() for pool in pools_of(parts, epoch)]


@pytest.mark.parametrize("epoch", range(1, 7))
@pytest.mark.parametrize("num_rows", [3, 40, 101])
def test_every_row_is_in_one_pool_in_order(num_rows, epoch):
    pools = cut(num_rows, 20, epoch)
    assert [row for pool in pools for row in pool] == list(range(num_rows))
    assert all(len(pool) <= 20 for pool in pools)
    assert all(len(pool) == 20 for pool in pools[1:-1])


def test_pools_are_cut_elsewhere_in_every_epoch():
    starts = [{pool[0] for pool in cut(100, 20, epoch)} - {0} for epoch in range(1, 6)]
    assert starts[0] == {20, 40, 60, 80}
    assert starts[4] == starts[0]
    for one, other in pairwise(starts):
        assert not one & other
