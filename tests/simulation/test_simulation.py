"""The simulator itself: faults strike where they are told to, time passes only when it must."""

import pytest
from simulation.catalogue import Item, parquet
from simulation.processes import FAULTS, Fault, Killed
from simulation.store import SCHEME
from simulation.world import STALE_SECONDS, World


@pytest.fixture
def world():
    world = World("itself")
    world.place("in", "a.parquet").write_bytes(parquet([Item("p1", "red shirt"), Item("p2", "x")]))
    yield world
    world.close()


def test_the_same_seed_makes_the_same_calls(world):
    first = world.night().process.calls
    again = World("itself")
    again.place("in", "a.parquet").write_bytes(parquet([Item("p1", "red shirt"), Item("p2", "x")]))
    assert again.night().process.calls == first
    assert len(first) > 50


@pytest.mark.parametrize("is_after", [False, True])
def test_a_put_fails_before_or_after_it_took_effect(world, is_after):
    fault = Fault.LOST_ANSWER if is_after else Fault.REFUSED
    place = world.place("file")
    with world.process("one", faults={0: fault}).as_current(), pytest.raises(OSError, match="re"):
        place.write_bytes(b"text")
    assert place.exists() == is_after


def test_the_dead_do_nothing(world):
    process = world.process("one", faults={0: Fault.KILL_BEFORE})
    with process.as_current():
        for name in ("first", "second"):
            with pytest.raises(Killed):
                world.place(name).write_bytes(b"text")
    assert not world.place("second").exists()


def test_a_listing_is_stale_by_the_newest_file(world):
    folder = world.place("folder")
    with world.process("one", faults={2: Fault.STALE}).as_current():
        folder.join("a").write_bytes(b"")
        folder.join("b").write_bytes(b"")
        assert folder.names() == ["a"]
        assert folder.names() == ["a", "b"]


def test_a_frozen_owner_is_overtaken_and_wakes_without_effect(world):
    calls = world.night().process.calls
    commit = [call.kind for call in calls].index("delta commit")
    world.place("in", "a.parquet").write_bytes(parquet([Item("p1", "blue shirt")]))
    sleeper = world.process("sleeper", freeze_at=commit)
    ends = []
    sleeper.run_until_frozen(lambda: ends.append(world.run(sleeper, world.night_work())))
    assert sleeper.is_frozen
    world.clock.sleep(2 * STALE_SECONDS)
    assert world.night().code == 0
    sleeper.wake()
    assert ends[0].code in (0, 1)


def test_every_kind_of_call_can_fail():
    assert all(Fault.REFUSED in faults for faults in FAULTS.values())
    assert SCHEME == "sim"
