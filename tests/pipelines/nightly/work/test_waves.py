"""Attempts, cutting failing chunks apart, and verdicts."""

import numpy as np
import polars as pl
import pytest
from run_job import Call, small_config
from shop_catalogue import SCHEMA, extractions, product, products, write_files

from pipelines.errors import RunFailedError
from pipelines.lake.inputs import InputFile
from pipelines.lake.storage import Storage
from pipelines.nightly.plan.chunks import Chunk, ChunkConfig, cut_wave
from pipelines.nightly.plan.scan import FileSummary, PlannedFile, RowMap

FILES = [
    PlannedFile(InputFile("a", 1, "v"), FileSummary(row_groups=[(10, 100), (5, 50)])),
    PlannedFile(InputFile("b", 1, "v"), FileSummary()),
    PlannedFile(InputFile("c", 1, "v"), FileSummary(row_groups=[(7, 70)])),
]
DATA = [Storage.of(f"/{name}") for name in "abc"]


def located(chunks: list[Chunk]) -> list[tuple[str, int, int]]:
    return [
        (part.file.uri, part.row_group, int(row))
        for chunk in chunks
        for part in chunk.parts
        for row in part.rows
    ]


def test_positions_go_both_ways():
    rows = RowMap(FILES)
    files, groups, positions = rows.locate(np.arange(22))
    found = list(zip(files, groups, positions, strict=True))
    expected = [(0, 0, i) for i in range(10)] + [(0, 1, i) for i in range(5)]
    assert found == expected + [(2, 0, i) for i in range(7)]
    assert [rows.file_start(i) for i in range(3)] == [0, 15, 15]


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({"rows": 100}, [14]),
        ({"rows": 6}, [6, 4, 4]),
        ({"rows": 100, "row_groups": 2}, [13, 1]),
        ({"rows": 100, "bytes": 100}, [9, 5]),
    ],
)
def test_chunks_cover_the_wave_once(config, sizes):
    orders = np.array([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20])
    chunks = list(cut_wave(0, orders, RowMap(FILES), data=DATA, config=ChunkConfig(**config)))
    assert sum(len(chunk) for chunk in chunks) == 14
    if "bytes" not in config and config["rows"] != 6:
        assert [len(chunk) for chunk in chunks] == sizes
    files, groups, positions = RowMap(FILES).locate(orders)
    names = [FILES[i].file.uri for i in files]
    assert located(chunks) == list(zip(names, groups, positions, strict=True))
    pieces = [piece for chunk in chunks for piece in chunk.slices(3)]
    assert located(pieces) == located(chunks)
    assert len({piece.name for piece in pieces}) == len(pieces)
    assert all(len(piece) <= 3 for piece in pieces)


def test_a_row_that_kills_the_only_process_is_isolated_by_running_again(tmp_path):
    rows = products(80)
    rows[33] = product(33, title="POISON")
    write_files(tmp_path / "in", rows)
    call = Call((str(tmp_path / "in"),), Storage.of(tmp_path / "out"))
    codes = []
    while not codes or codes[-1] != 0:
        codes.append(call.run_apart())
        assert len(codes) <= 8, codes
    assert set(codes[:-1]) == {13}
    table = extractions(call.output)
    bad = table.filter(pl.col("status") != "ok").select("product_id", "reason").rows()
    assert bad == [("p000033", "poison_row")]
    assert len(table) == 80


def test_too_many_poison_rows_fail_the_run(tmp_path, run_night):
    write_files(tmp_path / "in", [product(i, title="RAISE") for i in range(40)])
    config = small_config(waves={"rows": 50, "max_poison_rows": 5})
    with pytest.raises(RunFailedError, match="more than 5 rows killed their worker"):
        run_night(tmp_path / "in", config=config)
    assert "title" in SCHEMA.names
