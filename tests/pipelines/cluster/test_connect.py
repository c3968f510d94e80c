"""Joining a cluster leaves the rest of the process as it was."""

import io
import logging

import ray.data  # noqa: F401 - sets up its logging

from pipelines.cluster.connect import _quieten


def test_only_rays_own_console_is_quietened():
    logger, other = logging.getLogger("ray.data"), logging.StreamHandler(io.StringIO())
    logger.addHandler(other)
    try:
        _quieten()
        assert other.level == logging.NOTSET
    finally:
        logger.removeHandler(other)
    own = [h for h in logger.handlers if type(h).__name__ == "PlainRayHandler"]
    assert [handler.level for handler in own] == [logging.ERROR]


def test_what_a_test_hears_is_not_cut_off(caplog):
    _quieten()
    logging.getLogger("pipelines").warning("something")
    assert "something" in caplog.text
