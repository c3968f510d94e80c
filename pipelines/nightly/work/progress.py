"""One line now and then: how far a run is and how long it will take."""

import logging
import time

from pipelines.lake.times import as_duration

_log = logging.getLogger(__name__)


class Progress:
    """Counts rows against a total and logs every `interval` seconds."""

    def __init__(self, total: int, *, interval: float = 10.0) -> None:
        self._total = total
        self._interval = interval
        self._rows = 0
        self._started = self._logged = time.monotonic()

    def add(self, rows: int) -> None:
        """Count rows that are done."""
        self._rows += rows
        now = time.monotonic()
        if now - self._logged >= self._interval or self._rows == self._total:
            self._logged = now
            _log.info("%s", self._line(now - self._started))

    def _line(self, seconds: float) -> str:
        rate = self._rows / max(seconds, 1e-9)
        left = (self._total - self._rows) / max(rate, 1e-9)
        share = 100 * self._rows / max(1, self._total)
        return (
            f"{self._rows:,} of {self._total:,} products ({share:.1f}%), {rate:.1f} products/s, "
            f"{as_duration(left)} left"
        )
