"""Rolling back: what readers saw at a version is what they see again, and nights go on from it."""

import json

import pytest
from run_job import Call
from shop_catalogue import content, extractions, product, products, write_files

from pipelines.lake.storage import Storage
from pipelines.nightly.rollback import rollback
from pipelines.nightly.table.erase import erase
from pipelines.nightly.table.lock import LockConfig
from pipelines.nightly.table.maintenance import vacuum

LOCK = LockConfig()


@pytest.fixture
def place(request, tmp_path) -> Storage:
    """On this machine, unless a test asks for S3."""
    if getattr(request, "param", "local") == "local":
        return Storage.of(tmp_path)
    server = request.getfixturevalue("s3_server")
    return Storage.of(server.uri(f"rollback-{tmp_path.name}"), server.options)


@pytest.fixture
def nights(place, tmp_path):
    """nights(name, rows, **model) runs a night over these rows; the table is out/ of `place`."""

    def run(name: str, rows: list, **model) -> dict:
        write_files(tmp_path / "in", rows)
        options, request = dict(place.options), {"run_id": name}
        return Call((str(tmp_path / "in"),), place.join("out"), options, request, model=model).run()

    return run


@pytest.mark.parametrize(
    "place", ["local", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)
def test_a_bad_night_is_taken_back_and_the_next_one_goes_on(nights, place):
    output = place.join("out")
    good = [*products(30), product(1)]  # one duplicate: the quarantine table has a row
    nights("good", good)
    before = content(output)
    nights("bad", [product(i, title="black leather") for i in range(20)])
    summary = rollback(output, "good", config=LOCK)
    assert (summary["state"], summary["to_run"]) == ("rolled back", "good")
    for found, expected in zip(content(output), before, strict=True):
        assert found.equals(expected)
    last = json.loads(output.join("_runs", "last.json").read_bytes())
    assert (last["run_id"], last["rows_in"]) == ("good", 31)
    assert nights("again", good)["rows_worked"] == 0


def test_going_back_and_forth_ends_where_it_began(nights, place):
    output = place.join("out")
    nights("one", products(20))
    nights("two", products(30))
    latest = content(output)
    rollback(output, "one", config=LOCK)
    assert len(extractions(output)) == 20
    rollback(output, "two", config=LOCK)
    for found, expected in zip(content(output), latest, strict=True):
        assert found.equals(expected)


def test_rolling_back_to_now_changes_no_file(nights, place):
    nights("one", products(20))
    summary = rollback(place.join("out"), "one", config=LOCK)
    assert (summary["buckets_changed"], summary["files_restored"]) == (0, 0)


def test_vacuumed_and_erased_versions_are_refused(nights, place):
    output = place.join("out")
    nights("one", products(20))
    nights("two", products(25))
    erase(output, ["p000003"], is_vacuumed=False, config=LOCK)
    with pytest.raises(ValueError, match="products were erased"):
        rollback(output, "two", config=LOCK)
    nights("three", products(30))
    nights("four", products(35))
    vacuum(output, hours=0)
    with pytest.raises(ValueError, match="deleted by vacuum"):
        rollback(output, "three", config=LOCK)
    assert len(extractions(output)) == 35


@pytest.mark.parametrize("moment", ["99", "nobody", "1999-01-01"])
def test_unknown_moments(nights, place, moment):
    nights("one", products(5))
    with pytest.raises(ValueError, match="found no"):
        rollback(place.join("out"), moment, config=LOCK)


def test_an_open_run_is_abandoned(nights, place, tmp_path):
    output = place.join("out")
    nights("one", products(20))
    write_files(tmp_path / "in", products(60))
    call = Call((str(tmp_path / "in"),), output, dict(place.options), {"run_id": "cut"})
    assert call.run_apart(crash_at="before_gate") == -9
    # the dead owner is known to be dead on this machine: nobody has to wait
    assert rollback(output, "one", config=LOCK)["abandoned_run"] == "cut"
    summary = nights("next", products(60))
    assert (summary["run_id"], summary["rows_worked"]) == ("next", 40)


def test_no_table(tmp_path):
    with pytest.raises(ValueError, match="found no table"):
        rollback(Storage.of(tmp_path), "1", config=LOCK)


def test_the_next_gate_compares_with_the_rates_of_the_last_run_of_many_rows(nights, place):
    output = place.join("out")
    many = products(600)
    nights("many", many)
    rates = json.loads(output.join("_runs", "last.json").read_bytes())["attribute_rates"]
    nights("few", [product(0, title="black leather"), *many[1:]])
    nights("bad", [product(0, title="hat"), *many[1:]])
    rollback(output, "few", config=LOCK)
    last = json.loads(output.join("_runs", "last.json").read_bytes())
    assert (last["run_id"], last["rows_in"]) == ("few", 600)
    assert last["attribute_rates"] == rates


def test_a_version_whose_quarantine_was_vacuumed_is_refused_and_nothing_is_changed(nights, place):
    output = place.join("out")
    nights("one", [*products(20), product(1)])
    nights("two", products(25))
    before = content(output)
    for path in place.fs.find(output.join("quarantine").path):
        if path.endswith(".parquet"):
            place.fs.rm(path)
    with pytest.raises(ValueError, match="deleted by vacuum"):
        rollback(output, "one", config=LOCK)
    for found, expected in zip(content(output), before, strict=True):
        assert found.equals(expected)
