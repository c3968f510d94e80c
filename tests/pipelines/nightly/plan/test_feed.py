"""Nights over a change feed: the same table as without it, and only changed rows are read."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from dictionary_model import DictionarySource
from run_job import small_config
from shop_catalogue import COMPARED, SCHEMA, extractions, product, products

from pipelines.lake.storage import Storage
from pipelines.lake.tables import RUNS
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.plan.keys import KEYS
from pipelines.nightly.settings import NightlyRequest

FEED = {"delta.enableChangeDataFeed": "true"}


def rows_of(*items) -> pa.Table:
    return pa.Table.from_pylist(list(items), schema=SCHEMA)


def merge(table, *items) -> None:
    (
        DeltaTable(table)
        .merge(rows_of(*items), "s.product_id = t.product_id", "s", "t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in"
    for start in range(0, 200, 50):
        rows = pa.Table.from_pylist(products(50, start=start), schema=SCHEMA)
        write_deltalake(path, rows, mode="append", configuration=FEED)
    return path


@pytest.fixture
def night(tmp_path):
    def run(table, output="out", **request):
        place = Storage.of(tmp_path / output)
        job = NightlyJob(DictionarySource(), place, small_config(**request.pop("config", {})))
        return job.run(NightlyRequest((str(table),), **request))

    return run


def compared(tmp_path, output="out") -> pl.DataFrame:
    table = extractions(Storage.of(tmp_path / output))
    return table.select(COMPARED).sort("product_id")


def used_feed(summary) -> bool:
    return "feed" in summary["phase_seconds"] and summary["files"] <= 1


def test_a_merge_reads_only_what_it_changed(table, tmp_path, night):
    first = night(table)
    merge(table, product(3, title="black wool coat"), product(300, title="green hat"))
    DeltaTable(table).delete("product_id = 'p000007'")
    summary = night(table)
    assert used_feed(summary)
    assert summary["bytes_scanned"] < first["bytes_scanned"] / 2
    keys = Storage.of(tmp_path / "out" / RUNS / KEYS)
    assert keys.names()  # of the whole input, for the night without the feed
    found = (summary["rows_in"], summary["rows_worked"], summary["rows_vanished"])
    assert found == (200, 2, 1)
    night(table, "plain", is_full=True)
    is_there = pl.col("status") != "vanished"
    assert compared(tmp_path).filter(is_there).equals(compared(tmp_path, "plain"))
    again = night(table)
    assert used_feed(again)
    assert (again["rows_worked"], again["rows_in"], again["bytes_scanned"]) == (0, 200, 0)


def test_products_that_come_back_and_rows_that_change_twice(table, tmp_path, night):
    night(table)
    DeltaTable(table).delete("product_id in ('p000001', 'p000002')")
    night(table)
    merge(table, product(1, title="red again"), product(5, title="blue once"))
    merge(table, product(5, title="green twice"), product(400, title="wool"))
    DeltaTable(table).delete("product_id = 'p000400'")
    DeltaTable(table).optimize.compact()
    summary = night(table)
    assert used_feed(summary)
    assert (summary["rows_worked"], summary["rows_in"]) == (2, 199)
    rows = compared(tmp_path).filter(pl.col("product_id").is_in(["p000001", "p000002", "p000005"]))
    assert rows["status"].to_list() == ["ok", "vanished", "ok"]
    assert rows["values"][2][0]["value"] == "green"


@pytest.mark.parametrize("seed", range(4))
def test_any_history_gives_the_table_of_a_full_night(table, tmp_path, night, seed):
    dice = np.random.default_rng(seed)
    night(table)
    for step in range(4):
        for _ in range(int(dice.integers(0, 3))):
            numbers = dice.integers(0, 260, 6).tolist()
            if dice.random() < 0.4:
                ids = ", ".join(f"'p{number:06d}'" for number in numbers)
                DeltaTable(table).delete(f"product_id in ({ids})")
            else:
                unique = sorted(set(numbers))
                merge(table, *(product(n, title=f"wool {step} {dice.random()}") for n in unique))
        assert used_feed(night(table))
    night(table, "plain")
    is_there = pl.col("status") != "vanished"
    assert compared(tmp_path).filter(is_there).equals(compared(tmp_path, "plain"))


def turn_feed_off(table, _):
    DeltaTable(table).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    merge(table, product(1, title="black"))


def make_a_duplicate(table, _):
    write_deltalake(table, rows_of(product(1, title="black")), mode="append")


def add_an_unusable_id(table, _):
    write_deltalake(table, rows_of(product(1, product_id=" ", title="black")), mode="append")


def add_a_column(table, _):
    rows = rows_of(product(500)).append_column("extra", pa.array(["x"]))
    write_deltalake(table, rows, mode="append", schema_mode="merge")


def restore(table, _):
    merge(table, product(1, title="black"))
    DeltaTable(table).restore(3)


def leave_a_duplicate_for_a_night(table, night):
    write_deltalake(table, rows_of(product(1, title="black")), mode="append")
    night(table)
    DeltaTable(table).delete("title = 'black'")


def set_a_limit(table, night):
    merge(table, product(1, title="black"), product(2, title="black"))
    night(table, limit=1)


CHANGES = [
    turn_feed_off,
    make_a_duplicate,
    add_an_unusable_id,
    add_a_column,
    restore,
    leave_a_duplicate_for_a_night,
    set_a_limit,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_everything_is_compared_when_the_feed_is_unclear(table, tmp_path, night, change):
    night(table)
    change(table, night)
    assert night(table)["files"] == len(DeltaTable(table).file_uris())
    night(table, "plain")
    is_there = pl.col("status") != "vanished"
    assert compared(tmp_path).filter(is_there).equals(compared(tmp_path, "plain"))


@pytest.mark.parametrize(
    ("request_", "config", "rows"),
    [
        ({"is_full": True}, {}, 200),
        ({"is_replay": True}, {}, 1),
        ({}, {"columns": {"updated_at": None}}, 1),
        ({}, {"retry_reasons": ("no_picture",)}, 2),
    ],
)
def test_everything_is_compared_when_more_is_asked_for(table, night, request_, config, rows):
    merge(table, product(9, image=None))
    night(table)
    merge(table, product(1, title="black"))
    summary = night(table, config=config, **request_)
    assert summary["files"] == len(DeltaTable(table).file_uris())
    assert summary["rows_worked"] == rows


def test_the_feed_is_not_used_after_a_rollback(table, tmp_path, night):
    from pipelines.nightly.rollback import rollback
    from pipelines.nightly.table.lock import LockConfig

    first = night(table)
    merge(table, product(1, title="black wool"))
    night(table)
    rollback(Storage.of(tmp_path / "out"), first["run_id"], config=LockConfig())
    summary = night(table)
    assert not used_feed(summary)
    assert summary["rows_worked"] == 1
    assert used_feed(night(table))


def test_the_feed_is_read_again_after_a_crash(table, night, monkeypatch):
    night(table)
    merge(table, product(1, title="black wool"), product(2, title="green"))

    def die(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.nightly.run.Run.publish", die)
        with pytest.raises(OSError, match="killed"):
            night(table)
    merge(table, product(3, title="red wool"))
    summary = night(table)
    assert used_feed(summary)
    assert (summary["rows_worked"], summary["rows_extracted"]) == (1, 3)
