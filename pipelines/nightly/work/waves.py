"""Running the waves: who is next, what came back, and what to do with rows that kill workers.

A chunk that kills its worker is cut into smaller ones until the row is alone; a row that does it
alone `max_attempts` times is poison and settled as quarantined. The state machine is here, without
Ray; an executor feeds it. Attempts are remembered on storage only where a poison row takes
the driver with it (the local executor).
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipelines.errors import RunFailedError
from pipelines.lake.documents import read_json, write_json
from pipelines.lake.storage import Storage
from pipelines.lake.times import as_duration
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.chunks import Chunk
from pipelines.nightly.plan.plan import Plan
from pipelines.nightly.work.decode import InputChangedError
from pipelines.nightly.work.staging import Staging
from ulsdram_core.reasons import Reason

_log = logging.getLogger(__name__)


class WaveConfig(BaseModel):
    """The unit of redo after a crash, and how hard to try."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(
        20_000,
        ge=1,
        description="Rows per wave; a crash costs at most the waves "
        "under way. Waves overlap, so small ones cost little.",
    )
    max_attempts: int = Field(3, ge=1, description="Times that a single row may kill a worker.")
    max_poison_rows: int = Field(
        100, ge=0, description="More poison rows than this fail the run: the model is at fault."
    )
    max_replans: int = Field(3, ge=0, description="Times to plan again when inputs change.")


@dataclass(frozen=True, slots=True)
class Done:
    """What came back for a chunk: its rows and what they cost."""

    rows: pa.Table
    decode_seconds: float = 0.0
    model_seconds: float = 0.0
    bytes_read: int = 0
    broken_pictures: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing came back. `kind` OUT_OF_MEMORY or POISON_ROW names the reason to record."""

    kind: Reason
    detail: str


@dataclass(slots=True)
class WaveTotals:
    """Sums over the run."""

    rows: int = 0
    poison_rows: int = 0
    worker_failures: int = 0
    decode_seconds: float = 0.0
    model_seconds: float = 0.0
    bytes_read: int = 0
    broken_pictures: int = 0
    start_seconds: float = 0.0  # until the first rows came back
    steady_seconds: float = 0.0  # from then to the last rows
    steady_core_seconds: float = 0.0  # of the rows that came back in that time

    def add(self, other: "WaveTotals") -> None:
        """Add the sums of another attempt."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@dataclass(slots=True)
class _OpenWave:
    planned: int
    rows: int = 0
    tables: list[pa.Table] = field(default_factory=list)


class WaveRun:
    """Hands out chunks and collects rows; a wave is written when all its rows are there.

    `cut(wave)` gives a wave's chunks, `settle(chunk, failure)` the rows for a poison row.
    """

    def __init__(
        self,
        plan: Plan,
        staging: Staging,
        config: WaveConfig,
        *,
        cut: Callable[[int], Iterator[Chunk]],
        settle: Callable[[Chunk, Failure], pa.Table],
        attempts: "AttemptLog",
    ) -> None:
        self.totals = WaveTotals()
        self._plan = plan
        self._staging = staging
        self._config = config
        self._cut = cut
        self._settle = settle
        self._attempts = attempts
        done = {wave for generation, wave in staging.waves if generation == plan.generation}
        self._waiting_waves = deque(w for w in range(plan.num_waves) if w not in done)
        self._chunks: deque[Chunk] = deque()
        self._open: dict[int, _OpenWave] = {}
        self._input_changed: InputChangedError | None = None
        self._started = time.monotonic()
        self._first_done: float | None = None
        self._progress = Progress(plan.counts.extract - staging.num_rows)

    def next_chunk(self) -> Chunk | None:
        """The next chunk to work on; None when all has been handed out."""
        while self._input_changed is None:
            if not self._chunks and not self._open_next_wave():
                return None
            chunk = self._chunks.popleft()
            attempts = self._attempts.count(chunk)
            if attempts == 0 or (len(chunk) == 1 and attempts < self._config.max_attempts):
                self._attempts.begin(chunk)
                self._maybe_crash(chunk.wave, "in")
                return chunk
            self._take_apart(chunk)
        return None

    def finished(self, chunk: Chunk, done: Done) -> None:
        """Count the rows of a chunk, or of a part of one."""
        assert done.rows.num_rows == len(chunk), (chunk.name, done.rows.num_rows)
        self._keep_time(done)
        self.totals.decode_seconds += done.decode_seconds
        self.totals.model_seconds += done.model_seconds
        self.totals.bytes_read += done.bytes_read
        self.totals.broken_pictures += done.broken_pictures
        self.totals.rows += len(chunk)
        self._progress.add(len(chunk))
        wave = self._open[chunk.wave]
        wave.tables.append(done.rows)
        wave.rows += len(chunk)
        assert wave.rows <= wave.planned, (chunk.name, wave.rows, wave.planned)
        if wave.rows == wave.planned:
            self._close_wave(chunk.wave)

    def completed(self, chunk: Chunk) -> None:
        """All rows of a handed-out chunk came back: forget its attempts."""
        self._attempts.end(chunk)

    def failed(self, chunk: Chunk, failure: Failure) -> None:
        """A chunk killed its worker: try its rows again in smaller chunks."""
        self.totals.worker_failures += 1
        _log.warning("chunk %s (%d rows): %s", chunk.name, len(chunk), failure.detail)
        self._attempts.failed(chunk, failure)
        self._chunks.appendleft(chunk)

    def input_changed(self, error: InputChangedError) -> None:
        """Hand out nothing more; `result` raises the error when the rest has come back."""
        _log.warning("an input changed since it was planned: %s", error)
        self._input_changed = self._input_changed or error

    def check_finished(self) -> None:
        """Raise InputChangedError if an input changed; all waves are done otherwise."""
        if self._input_changed is not None:
            raise self._input_changed
        assert not self._open, sorted(self._open)
        assert not self._waiting_waves

    def _keep_time(self, done: Done) -> None:
        now = time.monotonic()
        if self._first_done is None:
            self._first_done = now
            self.totals.start_seconds = now - self._started
            return
        self.totals.steady_seconds = now - self._first_done
        self.totals.steady_core_seconds += done.decode_seconds + done.model_seconds

    def _open_next_wave(self) -> bool:
        if not self._waiting_waves:
            return False
        wave = self._waiting_waves.popleft()
        chunks = list(self._cut(wave))
        self._chunks.extend(chunks)
        self._open[wave] = _OpenWave(planned=sum(len(chunk) for chunk in chunks))
        return True

    def _close_wave(self, wave: int) -> None:
        rows = pa.concat_tables(self._open.pop(wave).tables)
        self._staging.write_wave(self._plan.generation, wave, rows)
        if wave == 0:
            crash_point("after_first_wave_file")
        self._staging.mark_wave(self._plan.generation, wave, rows.num_rows)
        self._maybe_crash(wave, "after")

    def _take_apart(self, chunk: Chunk) -> None:
        """Smaller chunks in place of one that failed; the verdict over a row that is alone."""
        if len(chunk) > 1:
            size = max(1, math.ceil(len(chunk) / 16))
            self._chunks.extendleft(reversed(chunk.slices(size)))
            return
        self.totals.poison_rows += 1
        if self.totals.poison_rows > self._config.max_poison_rows:
            raise RunFailedError(
                f"more than {self._config.max_poison_rows} rows killed their worker "
                f"(last: {self._attempts.last_detail}); the model or the machine is at fault"
            )
        failure = self._attempts.verdict(chunk)
        self.finished(chunk, Done(self._settle(chunk, failure)))

    def _maybe_crash(self, wave: int, where: str) -> None:
        last = self._plan.num_waves - 1
        names = {0: "first", last // 2: "middle", last: "last"}
        if wave in names:
            crash_point(f"{where}_{names[wave]}_wave")


class AttemptLog:
    """How often each chunk has been tried without success; on storage when `place` is given."""

    def __init__(self, place: Storage | None) -> None:
        self._place = place
        self._counts: dict[str, int] = {}
        self._failures: dict[str, Failure] = {}
        self.last_detail = "unknown"
        for name in place.names() if place else ():
            assert place is not None
            found = read_json(place.join(name))
            self._counts[name.removesuffix(".json")] = int((found or {"attempts": 0})["attempts"])

    def count(self, chunk: Chunk) -> int:
        """Attempts that have begun and not succeeded."""
        return self._counts.get(chunk.name, 0)

    def begin(self, chunk: Chunk) -> None:
        """Remember an attempt before it begins, so that it counts if nobody survives it."""
        if self._place is not None:
            attempts = self.count(chunk) + 1
            write_json(self._place.join(f"{chunk.name}.json"), {"attempts": attempts})

    def end(self, chunk: Chunk) -> None:
        """Forget the attempts of a chunk that succeeded."""
        if self._place is not None:
            self._place.join(f"{chunk.name}.json").delete()

    def failed(self, chunk: Chunk, failure: Failure) -> None:
        """Count an attempt that this process saw fail."""
        self._counts[chunk.name] = self.count(chunk) + 1
        self._failures[chunk.name] = failure
        self.last_detail = failure.detail

    def verdict(self, chunk: Chunk) -> Failure:
        """The failure to record for a row that was tried often enough."""
        unseen = Failure(Reason.POISON_ROW, "ended the process that worked on it")
        return self._failures.get(chunk.name, unseen)


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
