"""Files that cannot be read, files that change while they are read, and what each of them costs."""

import os
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.registry import register_implementation
from shop_catalogue import extractions, product, products, quarantine, write_file, write_files

from pipelines.errors import RunFailedError
from pipelines.lake.inputs import list_inputs
from pipelines.lake.source import InputChangedError
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.nightly.plan.rows import FileReader, RowSettings
from pipelines.nightly.plan.scan import ScanTask, scan_file


@pytest.fixture
def lake(tmp_path):
    return write_files(tmp_path / "in", products(60))


@pytest.fixture
def output(tmp_path):
    return Storage.of(tmp_path / "out")


def tasks_of(place, tmp_path) -> list[ScanTask]:
    settings = RowSettings(Columns(), ("title",), uses_pictures=True)
    runs = Storage.of(tmp_path / "runs")
    return [ScanTask(runs, file, settings, 4) for file in list_inputs([str(place)], {})]


class RefusingFile(MemoryFile):
    """Every read ends with what `RefusingStore.error` says."""

    def read(self, *arguments):
        if RefusingStore.error is not None:
            raise RefusingStore.error
        return super().read(*arguments)


class RefusingStore(MemoryFileSystem):
    """A store in memory that refuses to give what it lists."""

    protocol = "refusing"
    store: ClassVar[dict] = {}
    error: Exception | None = None

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("refusing://", "memory://"))

    def _open(self, path, mode="rb", **keywords):
        found = super()._open(path, mode, **keywords)
        return RefusingFile(self, path, found.getvalue()) if mode == "rb" else found


register_implementation("refusing", RefusingStore, clobber=True)


@pytest.fixture
def refusing(lake):
    RefusingStore.store.clear()
    fs = RefusingStore()
    for path in sorted(lake.iterdir()):
        fs.pipe_file(f"/in/{path.name}", path.read_bytes())
    yield "refusing://in"
    RefusingStore.error = None
    RefusingStore.store.clear()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("ExpiredToken"),
        OSError("Forbidden: in/part-001.parquet"),
        pa.ArrowMemoryError("malloc of size 1000 failed"),
    ],
)
def test_what_the_storage_refuses_is_no_broken_file(refusing, tmp_path, run_night, error):
    RefusingStore.error = error
    with pytest.raises(RunFailedError, match=r"could not read refusing://in/part-000.parquet"):
        run_night(refusing)
    RefusingStore.error = None
    assert run_night(refusing)["rows_extracted"] == 60
    assert len(quarantine(Storage.of(tmp_path / "out"))) == 0


def test_a_read_that_ends_early_is_no_broken_file(refusing, tmp_path, monkeypatch):
    monkeypatch.setattr(RefusingFile, "read", lambda *_: b"")
    monkeypatch.setattr("pipelines.lake.storage.time.sleep", lambda _: None)
    with pytest.raises(RunFailedError, match="bytes came back"):
        scan_file(tasks_of(refusing, tmp_path)[0])


def test_keys_of_a_file_that_was_swapped_and_swapped_back_are_not_kept(lake, tmp_path):
    task = tasks_of(lake, tmp_path)[1]
    path = lake / "part-001.parquet"
    path.rename(tmp_path / "kept")
    write_file(path, [product(i, title="green wool hat") for i in range(20, 40)])
    with pytest.raises(InputChangedError, match="replaced since it was listed"):
        scan_file(task)
    (tmp_path / "kept").rename(path)
    assert scan_file(task).summary.num_rows == 20


def test_keys_of_a_file_that_is_replaced_while_it_is_read_are_not_kept(lake, tmp_path, monkeypatch):
    from pipelines.nightly.plan import scan

    task = tasks_of(lake, tmp_path)[1]
    read = scan._scan_row_groups

    def read_and_replace(*arguments):
        found = read(*arguments)
        other = write_file(tmp_path / "other.parquet", [product(1)])
        os.replace(other, lake / "part-001.parquet")
        return found

    monkeypatch.setattr(scan, "_scan_row_groups", read_and_replace)
    with pytest.raises(InputChangedError, match="replaced since it was listed"):
        scan_file(task)


def test_a_file_deleted_between_listing_and_scan_is_planned_again(
    lake, output, run_night, monkeypatch
):
    from pipelines.nightly import night

    listed = night.list_inputs
    calls = []

    def list_and_delete(*arguments):
        found = listed(*arguments)
        calls.append(found)
        if len(calls) == 2:  # the first listing only checks the request
            (lake / "part-002.parquet").unlink()
        return found

    monkeypatch.setattr(night, "list_inputs", list_and_delete)
    assert run_night(lake)["rows_extracted"] == 40
    assert len(extractions(output)) == 40


def make_duplicate_columns(path):
    table = pa.table([["x"], ["red"], ["blue"]], names=["product_id", "title", "title"])
    pq.write_table(table, path)
    return "2 columns are named 'title'"


def make_utf16(path):
    path.with_suffix(".csv").write_bytes("product_id,title\nx,red\n".encode("utf-16"))
    return ""


def make_dangling_link(path):
    path.symlink_to("nowhere")
    return "found a link to nothing, expected a file"


def make_link_loop(path):
    path.symlink_to(path)
    return "found a link to nothing, expected a file"


def make_directory(path):
    path.mkdir()
    return "found a directory, expected a file"


def make_pipe(path):
    os.mkfifo(path)
    return "found a pipe, expected a file"


def make_nothing(path):
    path.touch()
    return "Parquet file size is 0 bytes"


def make_two_headers(path):
    path.with_suffix(".csv").write_text("product_id,title,title\nx,red,blue\n")
    return "names column 'title' more than once"


def make_no_gzip(path):
    path.with_suffix(".csv.gz").write_bytes(b"product_id,title\nx,red\n")
    return ""


BAD_FILES = [
    make_duplicate_columns,
    make_utf16,
    make_dangling_link,
    make_link_loop,
    make_directory,
    make_pipe,
    make_nothing,
    make_two_headers,
    make_no_gzip,
]


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__.removeprefix("make_"))
def test_one_bad_file_costs_that_file_only(lake, output, run_night, make):
    detail = make(lake / "part-009.parquet")
    summary = run_night(lake)
    assert (summary["rows_extracted"], summary["files_unreadable"]) == (60, 1)
    (entry,) = quarantine(output).rows(named=True)
    assert "part-009" in entry["file"]
    assert entry["reason"] == "unreadable_file"
    assert entry["detail"].startswith(detail)
    assert entry["num_rows"] == (1 if make is make_duplicate_columns else None)


def test_a_folder_named_like_a_file_holds_files(tmp_path, run_night):
    write_files(tmp_path / "in" / "export.parquet", products(20))
    assert run_night(tmp_path / "in")["rows_extracted"] == 20


def test_a_link_is_as_new_as_what_it_points_at(tmp_path):
    write_files(tmp_path / "there", products(10), files=1)
    (tmp_path / "in").mkdir()
    target = tmp_path / "there" / "part-000.parquet"
    (tmp_path / "in" / "a.parquet").symlink_to(target)
    before = list_inputs([str(tmp_path / "in")], {})
    write_file(target, products(10))
    assert list_inputs([str(tmp_path / "in")], {}) != before


def test_an_empty_picture_is_not_the_end_of_the_pictures(tmp_path):

    columns = Columns(image=None, images="images", image_uri="uris")
    settings = RowSettings(columns, ("title",), uses_pictures=True)
    kind = pa.list_(pa.binary())
    table = pa.table(
        {
            "product_id": ["a", "b", "c"],
            "title": ["red"] * 3,
            "images": pa.array([[b"", b"x.jpg"], [], [b"x.jpg"]], kind),
            "uris": pa.array([[], ["x.jpg", ""], []], pa.list_(pa.string())),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    (file,) = list_inputs([str(path)], {})
    with FileReader(Storage.of(path), file, settings) as reader:
        (raw,) = reader.take(0, np.arange(3))
    hashes = raw.hashes
    assert len(np.unique(hashes, axis=0)) == 3
    assert hashes[2].tolist() == [16866898385579520221, 15040628690213219756]  # as ever
