"""Work fanned out comes back once per item, whatever happens to a worker."""

import os
import time

import pytest

from pipelines.cluster.tasks import WorkerDiedError, map_here, map_tasks, results
from pipelines.errors import RunFailedError


def double(number: int) -> int:
    """What is asked of every item."""
    return 2 * number


def test_in_this_process_every_item_comes_with_its_result():
    assert list(map_here(double, [1, 2, 3])) == [(1, 2), (2, 4), (3, 6)]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_on_a_cluster_items_are_taken_as_there_is_room_and_come_back_once():
    taken = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    found = map_tasks(double, numbers(), most_at_once=3)
    first = next(found)
    assert len(taken) == 3
    assert sorted([first, *found]) == [(number, 2 * number) for number in range(20)]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_an_item_that_kills_its_worker_comes_back_as_that():
    def dies(number: int) -> int:
        if number == 1:
            os._exit(1)
        return number

    found = dict(map_tasks(dies, [0, 1, 2]))
    assert found[0] == 0
    assert found[2] == 2
    assert isinstance(found[1], WorkerDiedError)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_an_error_of_the_function_rises_and_ends_the_others(tmp_path):
    def work(number: int) -> None:
        if number == 0:
            raise ValueError("found nothing")
        time.sleep(20)
        (tmp_path / "late").touch()

    started = time.monotonic()
    with pytest.raises(ValueError, match="found nothing"):
        list(map_tasks(work, [0, 1]))
    assert time.monotonic() - started < 15
    assert not (tmp_path / "late").exists()


def test_a_worker_that_died_fails_the_run():
    mapped = results([("one", 1), ("two", WorkerDiedError("gone"))])
    assert next(mapped) == 1
    with pytest.raises(RunFailedError, match="two could not be worked on: gone"):
        next(mapped)
