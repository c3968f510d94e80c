"""Joining a Ray cluster: the one that RAY_ADDRESS names, else a private one on this machine."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import ray
import ray.data  # its import sets up its logging, so it must come before ours

# With two logical CPUs an actor pool beside a task that wants a whole one can wait for ever.
MIN_LOGICAL_CPUS = 4
_ROOT = Path(__file__).resolve().parents[2]
_log = logging.getLogger(__name__)


def connect_cluster(*, num_cpus: int | None = None) -> None:
    """Connect this process to Ray once; a second call does nothing.

    `num_cpus` sizes the private cluster (default: the machine's, at least 4 logical ones); it has
    no meaning on a cluster that exists.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        if address:
            _join(address)
        else:
            _start(num_cpus)
    if not _log.isEnabledFor(logging.DEBUG):
        _quieten()


def connect_for_workers(num_workers: int) -> None:
    """Connect to a cluster that holds `num_workers` processes beside reading and decoding.

    A private cluster gets the logical CPUs that this takes; on one that exists, waiting for CPUs
    that it lacks would never end, so ValueError.
    """
    connect_cluster(num_cpus=max(MIN_LOGICAL_CPUS, os.cpu_count() or 1, num_workers + 2))
    found = int(ray.cluster_resources().get("CPU", 0))
    if found < num_workers + 1:
        raise ValueError(
            f"found {found} CPUs in the Ray cluster, expected {num_workers + 1} for --workers "
            f"{num_workers}: one each, and one to read and decode; lower --workers or add nodes"
        )


def real_cores() -> int:
    """Return the real CPU cores behind the workers; at least 1."""
    if not ray.is_initialized():
        return os.cpu_count() or 1
    num_cores = int(ray.cluster_resources().get("CPU", 1))
    if len(ray.nodes()) == 1:  # a private cluster has more logical than real CPUs
        num_cores = min(num_cores, os.cpu_count() or 1)
    return max(1, num_cores)


def _join(address: str) -> None:
    if address.startswith(("http://", "https://")):
        raise ValueError(
            f"found RAY_ADDRESS={address}, expected host:port of a cluster; "
            "a dashboard address only serves `ray job submit`"
        )
    try:
        ray.init(logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ValueError(
            f"found no Ray cluster at RAY_ADDRESS={address}; start one or unset the variable"
        ) from error


def _start(num_cpus: int | None) -> None:
    # Workers inherit the environment: they must find our packages from any working directory.
    paths = [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    # Ray Train otherwise shows every printed line twice, once as a log line.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    ray.init(
        address="local",
        num_cpus=num_cpus or max(MIN_LOGICAL_CPUS, os.cpu_count() or 1),
        include_dashboard=False,
        logging_level=logging.WARNING,
    )


def _quieten() -> None:
    """Plans, progress and advice of Ray Data stay in its log files; its bars show on a terminal."""
    ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
    for handler in logging.getLogger("ray.data").handlers:
        # Ray's own alone: others listen to more than to Ray (pytest's to every logger)
        is_of_ray = type(handler).__module__.startswith("ray.")
        if is_of_ray and isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)
