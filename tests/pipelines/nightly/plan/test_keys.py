"""The key table: packs, what is merged, and that a night opens each of them once."""

import os

import numpy as np
import polars as pl
import pytest
from shop_catalogue import extractions, product, products, write_file, write_files

from pipelines.lake.storage import Storage
from pipelines.nightly.plan import keys
from pipelines.nightly.plan.keys import (
    KeyTable,
    MergeTask,
    list_packs,
    merge_packs,
    merge_tasks,
    write_pack,
)
from pipelines.nightly.plan.scan import KEY_DTYPE, FileKeys, FileSummary


def file_keys(name: str, seed: int, rows: int = 50) -> FileKeys:
    dice = np.random.default_rng(seed)
    records = np.zeros(rows, KEY_DTYPE)
    for column in ("id_hi", "id_lo", "hash_hi", "hash_lo"):
        records[column] = dice.integers(1, 2**63, rows, np.uint64)
    records["row"] = np.arange(rows)
    records["id_lo"][::10] = 0  # without a usable id
    return FileKeys(name, FileSummary(row_groups=[(rows, 1)]), records)


def read_all(runs: Storage, files: list[FileKeys], num_buckets: int) -> list[pl.DataFrame]:
    starts = {file.name: (file.summary, 1000 * i) for i, file in enumerate(files)}
    with KeyTable(list_packs(runs), starts) as table:
        return list(table.buckets(range(num_buckets + 1)))


def test_buckets_hold_the_rows_of_all_files_with_their_numbers(tmp_path):
    runs = Storage.of(tmp_path)
    files = [file_keys(f"f{i}", i) for i in range(5)]
    write_pack(runs, files[:3], 4)
    write_pack(runs, files[3:], 4)
    found = read_all(runs, files, 4)
    for i, file in enumerate(files):
        for bucket, frame in enumerate(found):
            of_file = frame.filter(pl.col("order") // 1000 == i)
            is_keyless = file.records["id_lo"] == 0
            is_here = is_keyless if bucket == 4 else file.records["id_hi"] % 4 == bucket
            expected = file.records[is_here & (is_keyless == (bucket == 4))]
            assert (of_file["order"].to_numpy() - 1000 * i == expected["row"]).all()
            assert (of_file["hash_lo"].to_numpy() == expected["hash_lo"]).all()


def test_merged_packs_hold_what_is_wanted_of_the_old_ones(tmp_path):
    runs = Storage.of(tmp_path)
    files = [file_keys(f"f{i}", i) for i in range(20)]
    for file in files:
        write_pack(runs, [file], 4)
    wanted = files[5:]
    before = read_all(runs, wanted, 4)
    names = frozenset(file.name for file in wanted)
    (task,) = merge_tasks(runs, list_packs(runs), names, num_buckets=4)
    merge_packs(task)
    (pack,) = list_packs(runs)
    assert sorted(pack.names) == sorted(names)
    after = read_all(runs, wanted, 4)
    for old, new in zip(before, after, strict=True):
        assert old.sort("order").equals(new.sort("order"))


def test_keys_that_do_not_belong_to_the_summary_are_not_used(tmp_path):
    runs = Storage.of(tmp_path)
    file = file_keys("f", 1)
    write_pack(runs, [file, file_keys("other", 2)], 4)
    healed = FileKeys("f", FileSummary(row_groups=[(50, 2)]), file.records)
    with pytest.raises(FileNotFoundError, match="no keys of 1 files"):
        read_all(runs, [healed], 4)


def test_a_killed_merge_changes_nothing(tmp_path, monkeypatch):
    runs = Storage.of(tmp_path)
    files = [file_keys(f"f{i}", i) for i in range(4)]
    for file in files:
        write_pack(runs, [file], 4)
    before = read_all(runs, files, 4)
    monkeypatch.setattr(Storage, "delete", lambda _: (_ for _ in ()).throw(OSError("killed")))
    names = frozenset(file.name for file in files)
    with pytest.raises(OSError, match="killed"):
        merge_packs(MergeTask(runs, tuple(list_packs(runs)), names, 4))
    assert len(list_packs(runs)) == 5
    after = read_all(runs, files, 4)
    assert all(a.sort("order").equals(b.sort("order")) for a, b in zip(before, after, strict=True))


def test_a_night_opens_each_pack_once_however_many_passes_it_takes(
    tmp_path, run_night, monkeypatch
):
    write_files(tmp_path / "in", products(120), files=40)
    run_night(tmp_path / "in")
    monkeypatch.setattr(keys, "_GROUP_FILES", 4)
    opened = []
    reader = keys.PackReader.__init__

    def count(self, pack):
        opened.append(pack.place.name)
        reader(self, pack)

    monkeypatch.setattr(keys.PackReader, "__init__", count)
    monkeypatch.setattr("pipelines.nightly.plan.planner._KEY_ROWS_AT_ONCE", 30)  # 4 passes
    write_file(tmp_path / "in" / "more.parquet", [product(500)])
    assert run_night(tmp_path / "in")["rows_worked"] == 1
    assert len(opened) == len(set(opened)) < 10


def test_a_file_that_heals_without_a_new_version_is_read(tmp_path, run_night):
    lake = write_files(tmp_path / "in", products(60))
    path = lake / "part-001.parquet"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 3000 + content[3004:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    summary = run_night(lake)
    assert summary["files_unreadable"] + summary["row_groups_unreadable"] == 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run_night(lake)["row_groups_unreadable"] == 0
    assert len(extractions(Storage.of(tmp_path / "out"))) == 60


def test_merging_again_after_a_kill_keeps_the_merged_pack(tmp_path):
    runs = Storage.of(tmp_path)
    files = [file_keys(f"f{i}", i) for i in range(4)]
    whole = write_pack(runs, files, 4)
    for file in files:
        write_pack(runs, [file], 4)
    packs = sorted(list_packs(runs), key=lambda pack: pack.place.path != whole.path)
    merge_packs(MergeTask(runs, tuple(packs), frozenset(file.name for file in files), 4))
    (pack,) = list_packs(runs)
    assert list(pack.names) == [file.name for file in files]
