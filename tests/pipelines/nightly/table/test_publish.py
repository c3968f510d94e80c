"""Commits: whole for readers, refused for those who lost the table, gone after an erasure."""

import threading
from pathlib import Path

import polars as pl
import pytest
from dictionary_model import DictionarySource
from run_job import Call, small_config
from shop_catalogue import extractions, product, products, quarantine, write_file, write_files

from pipelines.errors import RunFailedError
from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, id_hashes, open_table
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyRequest
from pipelines.nightly.table.erase import erase, read_ids
from pipelines.nightly.table.lock import FencedError, LockConfig, Owner, TableBusyError, TableLock
from pipelines.nightly.table.publish import Publisher, RewriteTask, rewrite_bucket


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path) -> Storage:
    if request.param == "local":
        return Storage.of(tmp_path)
    server = request.getfixturevalue("s3_server")
    return Storage.of(server.uri(tmp_path.name), server.options)


@pytest.fixture
def output(place, tmp_path) -> Storage:
    """A table of 40 products."""
    write_files(tmp_path / "in", products(40))
    call = Call((str(tmp_path / "in"),), place.join("out"), dict(place.options))
    call.run()
    return place.join("out")


def rewritten(snapshot: Snapshot, ids: list[str]) -> list:
    halves = id_hashes(ids)
    frame = pl.DataFrame({"id_hi": halves[:, 0], "id_lo": halves[:, 1]})
    buckets = range(snapshot.num_buckets)
    return [rewrite_bucket(RewriteTask(snapshot.bucket(b), "x", erased=frame)) for b in buckets]


def publisher(output: Storage, epoch: int) -> Publisher:
    return Publisher(output, epoch, f"run-{epoch}", 4)


def test_a_stale_owner_cannot_commit_after_a_takeover(output):
    stale, snapshot = publisher(output, 5), Snapshot.newest(output, num_buckets=4)
    files = rewritten(snapshot, ["p000001"])
    publisher(output, 6).fence()
    with pytest.raises(FencedError, match="somebody else changed"):
        stale.commit_extractions(snapshot, files)  # prepared before the takeover
    fresh = Snapshot.newest(output, num_buckets=4)
    with pytest.raises(FencedError, match="epoch 6 has written"):
        stale.commit_extractions(fresh, rewritten(fresh, ["p000001"]))
    with pytest.raises(FencedError):
        stale.commit_quarantine(quarantine(output).to_arrow())
    assert len(extractions(output)) == 40


def test_of_two_commits_from_one_snapshot_one_counts(output):
    snapshots = [Snapshot.newest(output, num_buckets=4) for _ in range(2)]
    files = [
        rewritten(snapshot, [name])
        for snapshot, name in zip(snapshots, ["p000001", "p000002"], strict=True)
    ]
    publisher(output, 7).commit_extractions(snapshots[0], files[0])
    with pytest.raises(FencedError):
        publisher(output, 7).commit_extractions(snapshots[1], files[1])
    assert len(extractions(output)) == 39


def test_a_run_that_wakes_after_a_takeover_publishes_nothing(output, place, tmp_path):
    """The whole job: it loses the table between its gate and its commit."""
    write_files(tmp_path / "in", products(45))

    class Sleeper(DictionarySource):
        def load(self):
            lock = place.join("out", "_runs", "_lock")
            newest = max(lock.names())
            lock.join(newest.replace(".json", ".beat")).write_bytes(b"0")  # silent for ages
            config = LockConfig(beat_seconds=1, stale_seconds=2)
            other = Owner("other", "elsewhere", 1, "", "other")
            for name in lock.names():  # its machine cannot be asked whether it is alive
                if name.endswith(".json"):
                    lock.join(name).write_bytes(other.to_json())
            taken = TableLock.acquire(lock, Owner.this_process("second"), config)
            publisher(output, taken.epoch).fence()
            taken.release()
            return super().load()

    config = small_config(lock={"beat_seconds": 30, "stale_seconds": 60})
    job = NightlyJob(Sleeper(), output, config)
    with pytest.raises(FencedError, match="has taken over"):
        job.run(NightlyRequest((str(tmp_path / "in"),)))
    assert len(extractions(output)) == 40


def test_two_runs_at_once_one_refuses(output, tmp_path):
    write_files(tmp_path / "in", products(45))
    request = NightlyRequest((str(tmp_path / "in"),))
    refused = []

    class Slow(DictionarySource):
        def load(self):
            job = NightlyJob(DictionarySource(), output, small_config())
            with pytest.raises(TableBusyError) as caught:
                job.run(request)
            refused.append(caught.value)
            return super().load()

    NightlyJob(Slow(), output, small_config()).run(request)
    assert len(refused) == 1
    assert len(extractions(output)) == 45


def test_readers_see_whole_commits_only(output, tmp_path):
    """Every night changes all titles; a reader must never see two nights mixed."""
    seen, stopped = [], threading.Event()

    def read():
        while not stopped.is_set():
            table = extractions(output)
            seen.append((len(table), table["run_id"].n_unique()))

    reader = threading.Thread(target=read)
    reader.start()
    for night in range(2):
        rows = [product(i, title=f"red wool {night}") for i in range(40)]
        write_files(tmp_path / "in", rows)
        Call((str(tmp_path / "in"),), output, dict(output.options)).run()
    stopped.set()
    reader.join()
    assert set(seen) == {(40, 1)}
    assert len(seen) >= 2


def test_erased_products_leave_table_and_history(output, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("p000003\n\np000004\nunknown\n")
    found = read_ids(Storage.of(ids))
    with pytest.raises(RunFailedError, match=r"1 of 3 products .*'unknown'") as error:
        erase(output, found, is_vacuumed=True, config=LockConfig())
    summary = error.value.summary
    assert (summary["products_asked"], summary["products_erased"]) == (3, 2)
    assert len(extractions(output)) == 38
    remains = b"".join(output.sibling(path).read_bytes() for path in output.fs.find(output.path))
    files = output.fs.find(output.join(EXTRACTIONS).path)
    names = [path for path in files if path.endswith(".parquet") and "_delta_log" not in path]
    assert len(names) == 4  # one live file per bucket, nothing superseded
    assert b"p000003" not in remains


def test_erase_drops_what_an_open_run_has_staged(output, tmp_path):
    write_files(tmp_path / "in", products(60))
    call = Call((str(tmp_path / "in"),), output, dict(output.options))
    assert call.run_apart(crash_at="before_commit") == -9
    summary = erase(
        output, ["p000050"], is_vacuumed=False, config=LockConfig(), is_missing_allowed=True
    )
    assert summary["abandoned_run"] is not None
    staged = [p for p in output.fs.find(output.join("_runs").path) if "staging" in p]
    assert staged == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "names no product id"), (b"\xff\xfe", "not UTF-8"), (None, "found no file")],
)
def test_files_of_ids_that_cannot_be_used(tmp_path, content, message):
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_ids(Storage.of(tmp_path / "ids"))


def test_erased_duplicates_leave_the_quarantine(tmp_path):
    rows = [product(1), product(1, title="blue")]
    write_file(tmp_path / "in" / "a.parquet", rows)
    call = Call((str(tmp_path / "in"),), Storage.of(tmp_path / "out"))
    call.run()
    assert quarantine(call.output)["product_id"].to_list() == ["p000001"]
    summary = erase(call.output, ["p000001"], is_vacuumed=False, config=LockConfig())
    assert summary["quarantine_entries_erased"] == 1
    assert len(quarantine(call.output)) == len(extractions(call.output)) == 0


def test_a_table_of_another_schema_version_is_refused(tmp_path: Path):
    from deltalake import DeltaTable

    from pipelines.lake.tables import EXTRACTIONS_SCHEMA, SCHEMA_VERSION_KEY

    DeltaTable.create(
        str(tmp_path / EXTRACTIONS),
        EXTRACTIONS_SCHEMA,
        partition_by=["bucket"],
        configuration={SCHEMA_VERSION_KEY: "99"},
        raise_if_key_not_exists=False,
    )
    with pytest.raises(ValueError, match="schema version 99, expected 1"):
        open_table(Storage.of(tmp_path), EXTRACTIONS)
