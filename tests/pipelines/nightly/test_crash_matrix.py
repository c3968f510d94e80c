"""SIGKILL at every named point, then once more: the tables equal those of an uninterrupted run."""

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from run_job import KILLED, Call
from shop_catalogue import assert_same_tables, product, products, upload, write_files

from pipelines.lake.storage import Storage
from pipelines.nightly.crash import CRASH_POINTS

FAST = (
    "during_scan",
    "before_plan_saved",
    "before_first_receipt",
    "during_merge",
    "during_rewrite",
    "before_commit",
    "after_commit",
    "before_closed",
)
COUNT = 200


@dataclass(frozen=True)
class Lake:
    """A first night done, a second one prepared; `copy` gives a table to break."""

    root: Path
    storage: Storage
    options: dict[str, str]

    def place(self, name: str) -> Storage:
        return self.storage.join(name)

    def call(self, output: str) -> Call:
        return Call(
            inputs=(self.place("in").uri,),
            output=self.place(output),
            options=self.options,
            config={"maintenance": {"compact": True, "vacuum_hours": 168}},
        )

    def copy(self, name: str) -> Storage:
        """A table after the first night."""
        first = self.place("first")
        for path in first.fs.find(first.path):
            inner = path.split("/first/", 1)[1]
            self.place(name).join(inner).write_bytes(first.join(inner).read_bytes())
        return self.place(name)


def second_night() -> list[dict]:
    """Changed, new, vanished, duplicate and keyless rows."""
    rows = products(COUNT)
    for number in range(20, 145):  # enough for several parts
        rows[number] = product(number, title=f"black wool coat {number}")
    rows[150] = product(150, image=b"no picture")
    rows += [product(500), product(7, title="red leather bag"), product(8, product_id=None)]
    return rows[:100] + rows[110:]


@pytest.fixture(scope="module")
def make_lake(tmp_path_factory, request):
    @cache
    def make(kind: str) -> Lake:
        root = tmp_path_factory.mktemp(kind)
        storage, options = Storage.of(root), {}
        if kind == "s3":
            server = request.getfixturevalue("s3_server")
            options = server.options
            storage = Storage.of(server.uri(root.name), options)
        lake = Lake(root, storage, options)
        fill(lake, products(COUNT))
        lake.call("first").run()
        fill(lake, second_night())
        lake.copy("expected")
        lake.call("expected").run()
        return lake

    return make


def fill(lake: Lake, rows: list[dict]) -> None:
    local = write_files(lake.root / "draft" / "in", rows)
    upload(local, lake.place("in"))
    shutil.rmtree(lake.root / "draft")


def crash_and_rerun(lake: Lake, point: str) -> None:
    name = f"broken-{point}"
    lake.copy(name)
    assert lake.call(name).run_apart(crash_at=point) == KILLED, point
    lake.call(name).run()
    assert_same_tables(lake.place(name), lake.place("expected"))


@pytest.mark.parametrize("point", FAST)
def test_fast_points_on_local_disk(make_lake, point):
    crash_and_rerun(make_lake("local"), point)


@pytest.mark.slow
@pytest.mark.parametrize("point", [p for p in CRASH_POINTS if p not in FAST])
def test_other_points_on_local_disk(make_lake, point):
    crash_and_rerun(make_lake("local"), point)


@pytest.mark.slow
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_all_points_on_s3(make_lake, point):
    crash_and_rerun(make_lake("s3"), point)


@pytest.mark.slow
def test_crash_after_crash(make_lake):
    """The same table through eight crashes in a row, each at a later point."""
    lake = make_lake("local")
    lake.copy("often")
    for point in (*FAST[:3], "after_middle_receipt", "before_last_receipt", *FAST[3:]):
        assert lake.call("often").run_apart(crash_at=point) == KILLED, point
    lake.call("often").run()
    assert_same_tables(lake.place("often"), lake.place("expected"))
