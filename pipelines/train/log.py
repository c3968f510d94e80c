"""What a training run leaves for people: a JSONL log, TensorBoard events, a progress line."""

import json
import time
from pathlib import Path
from typing import Protocol

from torch.utils.tensorboard import SummaryWriter

from pipelines.lake.storage import Storage
from pipelines.train.state import Progress

LOG, EVENTS = "metrics.jsonl", "tensorboard"


class Position(Protocol):
    """Where a run stands."""

    epoch: int
    step: int


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

    def resume(self, progress: Position) -> None:
        """Start from what is stored, up to the checkpoint."""
        self._start_step = progress.step
        stored = self.output.join(LOG)
        if progress.step and stored.exists():
            lines = stored.read_bytes().decode().splitlines()
            entries = [json.loads(line) for line in lines]
            self.entries = [entry for entry in entries if entry["step"] <= progress.step]

    def step(self, progress: Position, figures: dict[str, float]) -> None:
        """Note one optimiser step."""
        self._add("step", progress.step, figures)

    def epoch(self, progress: Position, figures: dict[str, float]) -> None:
        """Note one validation."""
        self._add("epoch", progress.step, {"epoch": progress.epoch, **figures})

    def flush(self) -> None:
        """Write the log and the events beside the output."""
        self.writer.flush()
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        self.output.join(LOG).write_bytes(text.encode())
        for path in (self.local / EVENTS).iterdir():
            self.output.join(EVENTS, path.name).write_bytes(path.read_bytes())

    def line(self, progress: Progress, *, epochs: int, products: int, loss: float) -> str:
        """Return the progress line; `products` are those seen since this attempt began."""
        elapsed = max(1e-9, time.monotonic() - self._started)
        rate = (progress.step - self._start_step) / elapsed
        left = (self.num_steps - progress.step) / rate if rate else float("inf")
        f1 = f"{progress.best_f1:.4f}" if progress.best_f1 >= 0 else "-"
        return (
            f"epoch {progress.epoch}/{epochs} step {progress.step}/{self.num_steps} "
            f"loss {loss:.4f} best F1 {f1} {products / elapsed:.1f} products/s "
            f"{clock(left)} left"
        )

    def _add(self, kind: str, step: int, figures: dict[str, float]) -> None:
        now = round(time.time(), 3)
        self.entries.append({"kind": kind, "step": step, "time": now, **figures})
        for name, value in figures.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    if seconds == float("inf"):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
