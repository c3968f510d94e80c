"""After a crash, a freeze or a deleted run folder: the old run is closed, the new one done."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dictionary_model import DictionarySource
from run_job import KILLED, Call, small_config
from shop_catalogue import extractions, products, write_files

from pipelines.analysis.export import ExportConfig, export
from pipelines.lake.storage import Storage
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.runs import RunFolder, check_run_id, sweep
from pipelines.nightly.settings import NightlyRequest
from pipelines.nightly.table.lock import FencedError, Owner

AFTER_COMMIT = ("after_commit", "after_quarantine_commit")


@pytest.fixture
def lake(tmp_path) -> Path:
    return write_files(tmp_path / "in", products(90))


@pytest.fixture
def output(tmp_path) -> Storage:
    return Storage.of(tmp_path / "out")


def runs_of(output: Storage) -> dict[str, dict]:
    """Published summaries by run id."""
    folder = Path(output.path) / "_runs"
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/published.json")}


@pytest.mark.parametrize("point", AFTER_COMMIT)
def test_another_model_after_a_crash_gets_its_own_run(lake, output, point):
    call = Call((str(lake),), output, request={"run_id": "old"})
    assert call.run_apart(crash_at=point) == KILLED
    summary = Call((str(lake),), output, model={"version": "2"}).run()
    assert (summary["model_id"], summary["rows_extracted"]) == ("dictionary-2", 90)
    assert set(extractions(output)["model_id"]) == {"dictionary-2"}
    done = runs_of(output)
    assert set(done) == {"old", summary["run_id"]}
    assert (done["old"]["model_id"], done["old"]["state"]) == ("dictionary-1", "published")


def test_a_run_without_limit_after_a_crash_with_one_does_the_rest(lake, output):
    assert (
        Call((str(lake),), output, request={"limit": 30}).run_apart(crash_at="after_commit")
        == KILLED
    )
    summary = Call((str(lake),), output).run()
    assert (summary["rows_extracted"], summary["rows_deferred"]) == (60, 0)
    assert len(extractions(output)) == 90


def test_the_same_named_run_is_only_closed(lake, output):
    call = Call((str(lake),), output, request={"run_id": "tonight"})
    assert call.run_apart(crash_at="after_commit") == KILLED
    assert call.run()["run_id"] == "tonight"
    assert set(runs_of(output)) == {"tonight"}
    assert call.run()["state"] == "already published"


def test_a_run_that_committed_is_not_taken_for_another_models(lake, output):
    call = Call((str(lake),), output, request={"run_id": "tonight"})
    assert call.run_apart(crash_at="after_commit") == KILLED
    other = Call((str(lake),), output, request={"run_id": "tonight"}, model={"version": "2"})
    with pytest.raises(ValueError, match=r"tonight was published with .*\(model_id differ\)"):
        other.run()
    assert call.run()["state"] == "already published"


@dataclass(frozen=True)
class OvertakenSource(DictionarySource):
    """While this model is loaded its process sleeps and another one does the whole night."""

    lake: str = ""
    table: str = ""

    def load(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Owner, "is_dead_here", lambda _: True)
            night = NightlyJob(DictionarySource(), Storage.of(self.table), small_config())
            assert night.run(NightlyRequest((self.lake,)))["state"] == "published"
        return super().load()


def test_an_owner_that_wakes_leaves_the_published_run_alone(lake, output):
    source = OvertakenSource(lake=str(lake), table=output.uri)
    with pytest.raises(FencedError):
        NightlyJob(source, output, small_config()).run(NightlyRequest((str(lake),)))
    (run_id,) = runs_of(output)
    report = json.loads((Path(output.path) / "_runs" / run_id / "report.json").read_text())
    assert report["state"] == "published"
    assert len(extractions(output)) == 90


def test_orphans_are_closed_and_emptied_at_the_next_start(lake, output, run_night):
    run_night(lake)
    orphan = Path(output.path) / "_runs" / "orphan"
    (orphan / "staging").mkdir(parents=True)
    (orphan / "staging" / "wave.parquet").write_bytes(b"p000001")
    run_night(lake)
    assert (orphan / "abandoned.json").exists()
    assert not (orphan / "staging").exists()


def test_runs_are_kept_for_their_days_and_the_open_one_for_ever(tmp_path):
    runs = Storage.of(tmp_path)
    old = (datetime.now(UTC) - timedelta(days=100)).isoformat()
    for name, opened in (("old", old), ("last", old), ("open", old), ("new", None)):
        folder = RunFolder(runs.join(name))
        folder.write("run.json", {"opened_at": opened} if opened else {})
        folder.write("published.json" if name != "open" else "x.json", {})
    (tmp_path / "open.json").write_text('{"run_id": "open"}')
    assert sweep(runs, keep_days=90, kept=("last",)) == ["old"]
    assert runs.names() == ["last", "new", "open", "open.json"]


@pytest.mark.parametrize(
    "run_id",
    ["last.json", "open.json", "LAST.JSON", "x.tmp", "erase-1", "rollback-x", "17", "_lock", "a/b"],
)
def test_a_run_id_that_means_something_else_is_refused(run_id):
    with pytest.raises(ValueError, match="found run id"):
        check_run_id(run_id)


def test_nights_go_on_after_the_run_folder_was_deleted(lake, output, run_night):
    for version in ("1", "2", "3"):
        run_night(lake, run_id=f"n{version}", model=DictionarySource(version=version))
    output.join("_runs").delete()
    assert run_night(lake, model=DictionarySource(version="4"))["rows_extracted"] == 90
    with pytest.raises(ValueError, match="n3 was published before"):
        run_night(lake, run_id="n3", model=DictionarySource(version="5"))
    assert run_night(lake, model=DictionarySource(version="5"))["state"] == "published"
    assert set(extractions(output)["model_id"]) == {"dictionary-5"}


@pytest.mark.parametrize("target", ["in", "in/out", "."])
def test_tables_are_apart_from_the_input(lake, tmp_path, run_night, target):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="in one another"):
        run_night(lake, output=tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before


def test_tables_go_into_no_folder_of_another_kind(lake, tmp_path, run_night):
    other = write_files(tmp_path / "other", products(3))
    with pytest.raises(ValueError, match="a folder of data files, expected one of result tables"):
        run_night(lake, output=other)
    run_night(lake)
    with pytest.raises(ValueError, match="a folder of result tables, expected one of snapshots"):
        export(Storage.of(tmp_path / "out2"), run_twice(run_night, lake, tmp_path), ExportConfig())


def run_twice(run_night, lake, tmp_path) -> Storage:
    """The table to export is out2; the one not to export into is out."""
    run_night(lake, output=tmp_path / "out2")
    return Storage.of(tmp_path / "out")
