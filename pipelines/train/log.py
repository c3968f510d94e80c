"""What a training run leaves for people: a JSONL log, TensorBoard events, a progress line."""

import json
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pipelines.lake.storage import Storage
from pipelines.train.state import Place

LOG, EVENTS = "metrics.jsonl", "tensorboard"


class TrainLog:
    """Collects one worker's figures and puts them beside the output at every checkpoint.

    Entries after the checkpoint that a run resumes from are dropped, so that the log of a broken
    run reads like that of an unbroken one.
    """

    def __init__(self, output: Storage, local: Path, num_steps: int) -> None:
        self.output = output
        self.local = local
        self.num_steps = num_steps
        self.entries: list[dict[str, float | str]] = []
        self.writer = SummaryWriter(str(local / EVENTS))
        self._started = time.monotonic()
        self._start_step = 0

    def resume(self, place: Place) -> None:
        """Start from what is stored, up to the checkpoint."""
        self._start_step = place.step
        stored = self.output.join(LOG)
        if place.step and stored.exists():
            lines = stored.read_bytes().decode().splitlines()
            entries = [json.loads(line) for line in lines]
            self.entries = [entry for entry in entries if entry["step"] <= place.step]

    def step(self, place: Place, figures: dict[str, float]) -> None:
        """Note one optimiser step."""
        self._add("step", place.step, figures)

    def epoch(self, place: Place, figures: dict[str, float]) -> None:
        """Note one validation."""
        self._add("epoch", place.step, {"epoch": place.epoch, **figures})

    def flush(self) -> None:
        """Write the log and the events beside the output."""
        self.writer.flush()
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        self.output.join(LOG).write_bytes(text.encode())
        for path in (self.local / EVENTS).iterdir():
            self.output.join(EVENTS, path.name).write_bytes(path.read_bytes())

    def pace(self, step: int) -> tuple[float, float]:
        """Return the seconds since this attempt began, and those left by the pace of its steps."""
        elapsed = max(1e-9, time.monotonic() - self._started)
        rate = (step - self._start_step) / elapsed
        return elapsed, (self.num_steps - step) / rate if rate else float("inf")

    def _add(self, kind: str, step: int, figures: dict[str, float]) -> None:
        now = round(time.time(), 3)
        self.entries.append({"kind": kind, "step": step, "time": now, **figures})
        for name, value in figures.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    if seconds == float("inf"):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
