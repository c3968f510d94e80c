"""Fanning work out: one function of many items, on a cluster or in this process."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from pipelines.cluster.connect import connect_cluster, real_cores
from pipelines.errors import RunFailedError

Item = TypeVar("Item")
Result = TypeVar("Result")
_RETRIES = 3


class WorkerDiedError(RuntimeError):
    """The process that worked on an item died, again and again."""


class MapTasks(Protocol):
    """Where tasks run: `map_tasks` or `map_here`."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """Yield every item with its result, in any order; what `function` raises rises."""


def map_tasks(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_cpus: float = 0.5,
    most_at_once: int = 0,
) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
    """Yield every item with its result on the cluster, as they come; joins one if need be.

    Items are taken when there is room for them: at most `most_at_once` are under way (0: two for
    each real core). `num_cpus` is a fraction so that a small cluster cannot deadlock. Tasks under
    way are cancelled when the caller stops listening.
    """
    connect_cluster()
    task = ray.remote(num_cpus=num_cpus, max_retries=_RETRIES)(function)
    most = most_at_once or 2 * real_cores()
    waiting = iter(items)
    running: dict[Any, Item] = {}
    try:
        while _fill(running, task, waiting, most):
            (ref,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ref), _result(ref)
    finally:
        for ref in running:
            ray.cancel(ref)


def map_here(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
    """Yield every item with its result, one after another in this process."""
    for item in items:
        yield item, function(item)


def results(
    mapped: Iterable[tuple[Item, Result | WorkerDiedError]],
) -> Iterator[Result]:
    """Yield the results alone; RunFailedError where a worker died of one."""
    for item, found in mapped:
        if isinstance(found, WorkerDiedError):
            raise RunFailedError(f"{item} could not be worked on: {found}")
        yield found


def _fill(running: dict[Any, Item], task: Any, waiting: Iterator[Item], most: int) -> bool:
    """Start what there is room for; return whether anything is under way."""
    while len(running) < most:
        try:
            item = next(waiting)
        except StopIteration:
            break
        running[task.remote(item)] = item
    return bool(running)


def _result(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError:
        raise
    except RayError as error:
        return WorkerDiedError(f"{type(error).__name__}: {error}"[:300])
