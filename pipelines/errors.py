"""A run that failed for a reason its user is told in one line, and the summary it leaves.

It stands below everything, so that no room needs the command line to fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Summary = Mapping[str, Any]


class RunFailedError(RuntimeError):
    """The run ended as a failure that it can explain: one line, a summary, exit code 1."""

    def __init__(self, message: str, *, summary: Summary | None = None) -> None:
        super().__init__(message)
        self.summary = dict(summary or {})
