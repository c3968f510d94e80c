"""Measure the nightly job: second night, unchanged night, plan of many ids, memory.

python tests/benchmarks/bench_nightly.py nights --rows 50000 --changed 0.01
python tests/benchmarks/bench_nightly.py plan --ids 50000000
python tests/benchmarks/bench_nightly.py memory --rows 20000
python tests/benchmarks/bench_nightly.py efficiency --rows 10000 --model MODEL

Prints one JSON object per measurement. The dictionary model of the tests stands in for a model
unless --model names a directory; `--cost` gives each of its products a cost in seconds.
"""

import argparse
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "pipelines" / "nightly")]

# workers must find the dictionary model too
os.environ["PYTHONPATH"] = str(ROOT / "tests" / "pipelines" / "nightly")

from dictionary_model import DictionarySource  # noqa: E402

from pipelines.cluster.connect import connect_cluster  # noqa: E402
from pipelines.lake.storage import Storage  # noqa: E402
from pipelines.nightly.job import NightlyJob  # noqa: E402
from pipelines.nightly.settings import NightlyConfig, NightlyRequest  # noqa: E402
from pipelines.nightly.work.model_folder import ModelFolder  # noqa: E402

WORDS = ("red", "blue", "green", "black", "cotton", "wool", "leather", "small", "large")
SHOWN = (
    "rows_in",
    "rows_worked",
    "rows_unchanged",
    "bytes_scanned",
    "bytes_read",
    "bytes_written",
    "write_amplification",
    "products_per_second",
    "efficiency",
    "start_seconds",
    "decode_core_seconds",
    "model_core_seconds",
    "phase_seconds",
)


def draw(number: int, side: int) -> bytes:
    """A smooth random picture: about 5 KB at 224 px."""
    dice = np.random.default_rng(number)
    small = dice.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(sink, "JPEG")
    return sink.getvalue()


def write_catalogue(
    folder: Path, rows: int, *, side: int, files: int = 10, changed: float = 0.0
) -> None:
    """All files are written anew; a share of the titles differs when `changed`."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [draw(i, side) for i in range(500)]
    dice = np.random.default_rng(1)
    is_changed = dice.permutation(rows) < changed * rows
    for file, numbers in enumerate(np.array_split(np.arange(rows), files)):
        titles = []
        for number in numbers:
            words = np.random.default_rng(int(number)).choice(WORDS, 6)
            extra = " renewed" if is_changed[number] else ""
            titles.append(f"{' '.join(words)} shirt {number}{extra}")
        table = pa.table(
            {
                "product_id": [f"p{number:09d}" for number in numbers],
                "title": titles,
                "image": [pictures[number % 500] + str(number).encode() for number in numbers],
            }
        )
        pq.write_table(table, folder / f"part-{file:04d}.parquet", row_group_size=1000)


class Watch:
    """Core time and summed proportional memory of this process and all below it, sampled.

    Reading the memory of large processes takes a tenth of a core: without it where time counts.

    `cpu_seconds`: what all of them have computed, Ray's own processes included.
    `others_share`: what part of the machine's core time everybody else took meanwhile. On a machine
    that others use too, `efficiency` can at best be one minus this.
    """

    def __init__(self, *, memory: bool = True) -> None:
        self.bytes = 0
        self._memory = memory
        self._cpu: dict[int, float] = {}
        self._cpu_before = 0.0
        self._machine_before = _machine_seconds()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._stopped.wait(1.0 if self._memory else 5.0):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += _pss(process.pid) if self._memory else 0
                    times = process.cpu_times()
                except (OSError, psutil.Error):
                    continue
                self._cpu[process.pid] = times.user + times.system
            self._cpu_before = self._cpu_before or sum(self._cpu.values())
            self.bytes = max(self.bytes, total)

    @property
    def cpu_seconds(self) -> float:
        """Since the first sample."""
        return round(sum(self._cpu.values()) - self._cpu_before, 1)

    @property
    def others_share(self) -> float:
        """Of all core seconds since the start, those that neither this tree used nor idled."""
        busy, idle = np.subtract(_machine_seconds(), self._machine_before)
        return round(max(0.0, busy - self.cpu_seconds) / (busy + idle), 3)


def _machine_seconds() -> tuple[float, float]:
    """Busy and idle core seconds of the whole machine since it started."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, idle, waiting, *rest = (int(word) for word in line.split()[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + sum(rest)) / ticks, (idle + waiting) / ticks


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def say(name: str, summary: dict, **more: object) -> None:
    found = {key: summary[key] for key in SHOWN if key in summary}
    print(json.dumps({"night": name, **found, **more}), flush=True)


def night(folder: Path, arguments: argparse.Namespace, *, name: str, memory: bool = True) -> dict:
    if arguments.model:
        model = ModelFolder(arguments.model, num_threads=1)
    else:
        model = DictionarySource(cost=arguments.cost)
    config = NightlyConfig.model_validate(
        {
            "workers": {"model_workers": arguments.workers},
            "gate": {"max_null_rate": 1.0},  # the pictures are noise and the texts drawn words
        }
    )
    started = time.monotonic()
    job = NightlyJob(model, Storage.of(folder / "out"), config)
    with Watch(memory=memory) as watch:
        summary = job.run(NightlyRequest((str(folder / "in"),)))
    seconds = round(time.monotonic() - started, 1)
    say(
        name,
        summary,
        wall_seconds=seconds,
        cpu_seconds=watch.cpu_seconds,
        others_share=watch.others_share,
        **({"peak_pss_mb": round(watch.bytes / 1e6)} if memory else {}),
    )
    return summary


def measure_nights(arguments: argparse.Namespace, folder: Path) -> None:
    """First night, second night with a share of rows changed in rewritten files, unchanged one."""
    write_catalogue(folder / "in", arguments.rows, side=arguments.side)
    started = time.monotonic()
    connect_cluster()
    print(json.dumps({"cluster_start_seconds": round(time.monotonic() - started, 1)}))
    night(folder, arguments, name="first")
    shutil.rmtree(folder / "in")
    write_catalogue(folder / "in", arguments.rows, side=arguments.side, changed=arguments.changed)
    second = night(folder, arguments, name="second")
    assert second["rows_worked"] == round(arguments.changed * arguments.rows)
    night(folder, arguments, name="unchanged")


def measure_memory(arguments: argparse.Namespace, folder: Path) -> None:
    """Peak of one first night; run it for two sizes and compare."""
    write_catalogue(
        folder / "in", arguments.rows, side=arguments.side, files=arguments.rows // 5000
    )
    night(folder, arguments, name=f"{arguments.rows} rows")


def measure_efficiency(arguments: argparse.Namespace, folder: Path) -> None:
    """One first night, timed without watching its memory."""
    write_catalogue(
        folder / "in", arguments.rows, side=arguments.side, files=max(1, arguments.rows // 5000)
    )
    night(folder, arguments, name=f"{arguments.rows} rows", memory=False)


def measure_plan(arguments: argparse.Namespace, folder: Path) -> None:
    """Plan-only over synthetic ids (with a trusted column, so without texts and pictures)."""
    (folder / "in").mkdir()
    size = 1_000_000
    for file in range(arguments.ids // size):
        numbers = np.arange(file * size, (file + 1) * size)
        ids = pa.array(np.char.mod("p%09d", numbers))
        title = pa.DictionaryArray.from_arrays(np.zeros(size, np.int32), ["red shirt"])
        table = pa.table({"product_id": ids, "title": title, "updated_at": numbers})
        pq.write_table(table, folder / "in" / f"{file:04d}.parquet", row_group_size=100_000)
    config = NightlyConfig(executor="local", trusted_column="updated_at")
    job = NightlyJob(DictionarySource(uses_pictures=False), Storage.of(folder / "out"), config)
    for name in ("first plan", "second plan"):
        started = time.monotonic()
        with Watch() as watch:
            plan = job.plan_only(NightlyRequest((str(folder / "in"),)))
        say(
            name,
            plan,
            rows_to_extract=plan["rows_to_extract"],
            wall_seconds=round(time.monotonic() - started, 1),
            peak_pss_mb=round(watch.bytes / 1e6),
            max_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        )


MEASURES = {
    "nights": measure_nights,
    "efficiency": measure_efficiency,
    "memory": measure_memory,
    "plan": measure_plan,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=list(MEASURES))
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--ids", type=int, default=50_000_000)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--model")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--cost", type=float, default=0.0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        MEASURES[arguments.what](arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
