"""One owner at a time, takeover of dead and silent ones."""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydantic import ValidationError

from pipelines.lake.storage import Storage
from pipelines.nightly.table.lock import FencedError, LockConfig, Owner, TableBusyError, TableLock

CONFIG = LockConfig(beat_seconds=0.1, stale_seconds=0.4)


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> Storage:
    if request.param == "local":
        return Storage.of(tmp_path / "lock")
    server = request.getfixturevalue("s3_server")
    return Storage.of(server.uri(f"{tmp_path.name}/lock"), server.options)


def owner(**changes) -> Owner:
    return replace(Owner.this_process("r"), **changes)


def test_a_living_owner_is_respected_and_a_released_one_followed(folder):
    config = LockConfig(beat_seconds=1, stale_seconds=60)
    first = TableLock.acquire(folder, owner(), config)
    with pytest.raises(
        TableBusyError, match=r"run r \(process \d+\) owns .* sign of life just now"
    ):
        TableLock.acquire(folder, owner(), config)
    first.check()
    first.release()
    second = TableLock.acquire(folder, owner(), config)
    assert (first.epoch, second.epoch, second.took_over) == (1, 2, False)
    with pytest.raises(FencedError, match="epoch 2 has taken over"):
        first.check()
    second.release()


def test_a_dead_process_of_this_machine_is_overtaken_at_once(folder):
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    process.start()
    alive = owner()
    process.join()
    dead = replace(alive, pid=process.pid, started="1")
    config = LockConfig(beat_seconds=30, stale_seconds=3600)
    TableLock.acquire(folder, dead, config)
    lock = TableLock.acquire(folder, owner(), config)
    assert (lock.epoch, lock.took_over) == (2, True)


def freeze(lock):
    """As if its machine stood still."""
    lock._stopped.set()
    lock._thread.join()


def test_an_owner_elsewhere_is_overtaken_when_it_is_silent(folder):
    freeze(TableLock.acquire(folder, owner(machine="elsewhere"), CONFIG))
    assert TableLock.acquire(folder, owner(), CONFIG).took_over


def test_a_beating_owner_elsewhere_is_not_overtaken(folder):
    lock = TableLock.acquire(folder, owner(machine="elsewhere"), CONFIG)
    with pytest.raises(TableBusyError):
        TableLock.acquire(folder, owner(), LockConfig(beat_seconds=0.5, stale_seconds=1.5))
    lock.release()


@pytest.mark.parametrize("clock", [86_400, -86_400])
def test_no_clock_is_trusted(folder, clock, monkeypatch):
    """A dead owner whose clock was a day ahead, a taker whose clock is ahead of a live owner's."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + clock)
    first = TableLock.acquire(folder, owner(machine="elsewhere"), CONFIG)
    monkeypatch.setattr(time, "time", now)
    with pytest.raises(TableBusyError):
        TableLock.acquire(folder, owner(), LockConfig(beat_seconds=0.5, stale_seconds=1.5))
    freeze(first)
    assert TableLock.acquire(folder, owner(), CONFIG).took_over


class Careless(Storage):
    """A store that takes every put, whatever its condition."""

    def join(self, *parts):
        return Careless(Storage.join(self, *parts).uri, self.options)

    def write_if_absent(self, data):
        self.write_bytes(data)
        return True


def test_of_two_puts_that_both_win_one_owner_is_left(tmp_path, monkeypatch):
    folder = Careless(str(tmp_path / "lock"))
    first = TableLock.acquire(folder, owner(), CONFIG)
    with monkeypatch.context() as patch:  # it listed before the first one's put
        patch.setattr("pipelines.nightly.table.lock.newest_epoch", lambda _: 0)
        second = TableLock.acquire(folder, owner(), CONFIG)
    assert first.epoch == second.epoch
    second.check()
    with pytest.raises(FencedError, match="another run's"):
        first.check()


def test_epochs_go_on_where_the_table_is(folder):
    lock = TableLock.acquire(folder, owner(), CONFIG, used=41)
    assert (lock.epoch, lock.took_over) == (42, True)
    lock.release()


def test_an_owner_whose_folder_was_deleted_is_fenced(folder):
    lock = TableLock.acquire(folder, owner(), CONFIG)
    freeze(lock)
    folder.delete()
    with pytest.raises(FencedError, match="deleted"):
        lock.check()


def test_of_many_at_once_one_wins(folder):
    def attempt(_):
        try:
            return TableLock.acquire(folder, owner(), LockConfig(beat_seconds=5, stale_seconds=60))
        except TableBusyError:
            return None

    with ThreadPoolExecutor(8) as pool:
        locks = [lock for lock in pool.map(attempt, range(8)) if lock is not None]
    assert len(locks) == 1
    locks[0].release()


def test_beats_must_be_frequent_enough():
    with pytest.raises(ValidationError, match="at least twice beat_seconds"):
        LockConfig(beat_seconds=10, stale_seconds=15)
