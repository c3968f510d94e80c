"""Fanning work out on a cluster."""

from typing import TypeVar

Item = TypeVar("Item")


Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """The process that worked on an item died, again and again."""
