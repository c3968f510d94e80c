from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pipelines.labelled.table import TableError, open_labelled
from pipelines.lake.kinds import check_apart
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.prepare.publishing import FORMAT, Publication, is_prepared


def draft(target: Storage, text: str) -> Publication:
    publication = Publication(target)
    for split in ("train", "valid", "test"):
        publication.draft.join(split, "part.txt").write_bytes(text.encode())
    report = {"format": FORMAT, "complete": True, "text": text}
    publication.draft.join("report.json").write_bytes(json.dumps(report).encode())
    publication.draft.join("report.md").write_bytes(b"# report")
    return publication


@pytest.fixture(params=["local", "memory"])
def target(request, tmp_path):
    if request.param == "local":
        return Storage.of(tmp_path / "out")
    return Storage.of(f"memory://{tmp_path.name}/out")


def siblings(target: Storage) -> list[str]:
    found = target.fs.ls(target.fs._parent(target.path), detail=False)
    return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)


def test_nothing_shows_before_publication(target):
    publication = draft(target, "new")
    assert not target.exists()
    publication.publish()
    assert target.join("train", "part.txt").read_bytes() == b"new"
    assert is_prepared(target)
    assert siblings(target) == ["out"]


def test_a_prepared_folder_is_replaced_whole(target):
    draft(target, "old").publish()
    target.join("train", "old.txt").write_bytes(b"old")
    draft(target, "new").publish()
    assert target.join("test", "part.txt").read_bytes() == b"new"
    assert not target.join("train", "old.txt").exists()
    assert json.loads(target.join("report.json").read_bytes())["text"] == "new"


def test_a_discarded_draft_leaves_the_old_folder(target):
    draft(target, "old").publish()
    draft(target, "new").discard()
    assert target.join("train", "part.txt").read_bytes() == b"old"
    assert siblings(target) == ["out"]


@pytest.mark.parametrize("report", [None, b"[]", b"{", b'{"format": "other"}'])
def test_folders_of_others_are_refused(target, report):
    target.join("precious.txt").write_bytes(b"data")
    if report is not None:
        target.join("report.json").write_bytes(report)
    with pytest.raises(ValueError, match="another kind"):
        Publication(target)
    assert target.join("precious.txt").read_bytes() == b"data"


def test_a_file_is_refused(target):
    target.write_bytes(b"data")
    with pytest.raises(ValueError, match="found a file"):
        Publication(target)


def test_a_folder_that_fills_meanwhile_is_refused(tmp_path):
    target = Storage.of(tmp_path / "out")
    publication = draft(target, "new")
    target.join("precious.txt").write_bytes(b"data")
    with pytest.raises(ValueError, match="another kind"):
        publication.publish()


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    draft(Storage.of(tmp_path / "out"), "new").publish()
    assert (tmp_path / "out" / "train" / "part.txt").read_text() == "new"


def test_drafts_of_dead_processes_are_removed(tmp_path):
    target = Storage.of(tmp_path / "out")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, running = Publication(target), Publication(target)
    owner = json.loads(left.draft.join("owner.json").read_bytes())
    assert owner["pid"] == os.getpid()
    left.draft.join("owner.json").write_bytes(json.dumps({**owner, "pid": dead.pid}).encode())
    Publication(target)
    assert not left.draft.exists()
    assert running.draft.exists()


@pytest.mark.parametrize(("source", "out"), [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "./a/")])
def test_input_and_output_stay_apart(tmp_path, source, out):
    with pytest.raises(ValueError, match="in one another"):
        check_apart(Storage.of(tmp_path / source), Storage.of(f"{tmp_path}/{out}"))


def test_neighbours_are_apart(tmp_path):
    check_apart(Storage.of(tmp_path / "data"), Storage.of(tmp_path / "data-prepared"))


def test_an_old_folder_between_two_renames_is_put_back(tmp_path):
    draft(Storage.of(tmp_path / "out"), "old").publish()
    (tmp_path / "out").rename(tmp_path / "out.old-1")  # killed here
    with pytest.raises(RuntimeError):
        _fail_in(Storage.of(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["text"] == "old"
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out"]


def _fail_in(target: Storage) -> None:
    publication = draft(target, "new")
    publication.discard()
    raise RuntimeError


def test_a_local_folder_is_replaced_in_one_step(tmp_path, monkeypatch):
    draft(Storage.of(tmp_path / "out"), "old").publish()
    publication = draft(Storage.of(tmp_path / "out"), "new")
    monkeypatch.setattr(type(tmp_path), "rename", None)  # nothing is renamed away and back
    publication.publish()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["text"] == "new"
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out"]


def test_a_training_run_is_no_target_even_with_a_report_in_it(tmp_path):
    draft(Storage.of(tmp_path / "out"), "old").publish()
    (tmp_path / "out" / "_ulsdram.json").write_text('{"kind": "training run"}')
    with pytest.raises(ValueError, match="a folder of training run"):
        Publication(Storage.of(tmp_path / "out"))


def test_a_folder_that_was_not_filled_to_the_end_is_refused_by_readers(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"format": FORMAT, "complete": False}))
    with pytest.raises(TableError, match="not filled to the end"):
        open_labelled(
            Storage.of(tmp_path), "train", columns=Columns(), sources=(), uses_pictures=False
        )
