"""Which folder a job may write to."""

import os

import pytest

from pipelines.lake.kinds import (
    BENCHMARK,
    DATA,
    DELTA,
    DEMO,
    MARKER,
    MODEL,
    PREPARED,
    RUN,
    SNAPSHOTS,
    TABLES,
    check_apart,
    check_file,
    check_kind,
    claim,
    kind_of,
)
from pipelines.lake.storage import Storage

LEGACY = {
    DELTA: ("_delta_log/0.json",),
    MODEL: ("config.json", "model.safetensors"),
    TABLES: ("extractions/_delta_log/0.json", "_runs/last.json"),
    RUN: ("model/config.json", "metrics.jsonl"),
    PREPARED: ("train/0.parquet", "report.json"),
    SNAPSHOTS: ("latest.json", "v1/wide/0.parquet"),
    DATA: ("part-0.parquet",),
}


def fill(place: Storage, names) -> Storage:
    for name in names:
        place.join(name).write_bytes(b"{}")
    return place


@pytest.mark.parametrize("kind", LEGACY)
def test_a_folder_of_an_earlier_release_is_known_and_only_its_own_job_goes_on(tmp_path, kind):
    place = fill(Storage.of(tmp_path / "x"), LEGACY[kind])
    assert kind_of(place) == kind
    claim(place, kind)
    assert kind_of(place) == kind
    other = RUN if kind != RUN else TABLES
    with pytest.raises(ValueError, match=f"to be a folder of {kind}, expected one of {other}"):
        claim(place, other)


def test_a_marker_outweighs_what_lies_there(tmp_path):
    place = Storage.of(tmp_path)
    claim(place, TABLES)
    fill(place, LEGACY[RUN])
    assert kind_of(place) == TABLES
    assert MARKER in place.names()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ValueError, match="found a file at --out"):
        claim(Storage.of(tmp_path / "x"), RUN)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("{}/in", "{}/in"),
        ("{}/in", "{}/in/"),
        ("{}/in", "file://{}/in"),
        ("{}/in", "{}/in/out"),
        ("{}/in/part.parquet", "{}/in"),
        ("{}/in", "{}/link"),
        ("{}/in", "{}/link/out"),
        ("{}/in", "{}/x/../in"),
        ("{}/in", "{}"),
        ("memory://lake/in", "memory://lake//in/"),
        ("memory://lake/in", "memory://lake/x/../in/out"),
        ("s3://lake/in", "s3a://lake/in/out"),
    ],
)
def test_one_place_in_two_spellings_is_one_place(tmp_path, source, target):
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "in", tmp_path / "link")
    with pytest.raises(ValueError, match="in one another"):
        check_apart(Storage.of(source.format(tmp_path)), Storage.of(target.format(tmp_path)))


@pytest.mark.parametrize(
    ("source", "target"),
    [("{}/in", "{}/in-2"), ("memory://a/in", "memory://b/in"), ("{}/in", "memory://{}/in")],
)
def test_places_beside_one_another_are_apart(tmp_path, source, target):
    check_apart(Storage.of(source.format(tmp_path)), Storage.of(target.format(tmp_path)))


CLOSED = (TABLES, SNAPSHOTS, MODEL, PREPARED)


@pytest.mark.parametrize("root", ["{}/x", "memory://kinds-{}/x"])
@pytest.mark.parametrize("kind", CLOSED)
def test_nothing_is_put_below_a_folder_that_a_job_keeps_for_itself(tmp_path, root, kind):
    place = Storage.of(root.format(tmp_path if root[0] == "{" else tmp_path.name))
    claim(place, kind)
    for below in (place.join("a"), place.join("a", "b", "c")):
        with pytest.raises(ValueError, match=f"to lie in .*, a folder of {kind}"):
            claim(below, RUN)
        with pytest.raises(ValueError, match=f"to lie in .*, a folder of {kind}"):
            check_file(below)
    claim(place.sibling(f"{place.path}-2").join("a"), RUN)
    place.delete()


def test_a_link_into_such_a_folder_is_no_way_around(tmp_path):
    claim(Storage.of(tmp_path / "table"), TABLES)
    os.symlink(tmp_path / "table", tmp_path / "link")
    with pytest.raises(ValueError, match="a folder of result tables"):
        check_kind(Storage.of(tmp_path / "link" / "run"), RUN)


def test_a_delta_table_of_somebody_else_is_left_alone(tmp_path):
    fill(Storage.of(tmp_path / "theirs"), LEGACY[DELTA])
    with pytest.raises(ValueError, match="a folder of Delta table"):
        check_file(Storage.of(tmp_path / "theirs" / "report.html"))


@pytest.mark.parametrize("kind", [RUN, BENCHMARK, DEMO])
def test_other_folders_may_hold_more(tmp_path, kind):
    claim(Storage.of(tmp_path), kind)
    claim(Storage.of(tmp_path / "table"), TABLES)
    check_file(Storage.of(tmp_path / "figures.json"))


def test_a_folder_that_may_not_be_looked_at_stops_nobody(tmp_path, monkeypatch):
    def forbidden(_place):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(Storage, "read_bytes", forbidden)
    check_file(Storage.of(tmp_path / "figures.json"))


@pytest.mark.parametrize("name", ["in", "in/out.json", "in/a/out.json"])
def test_a_file_is_not_put_into_an_input(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="found --out"):
        check_file(Storage.of(tmp_path / name), Storage.of(tmp_path / "in"))
    check_file(Storage.of(tmp_path / "out.json"), Storage.of(tmp_path / "in"))
