"""Mutated input files: a scan never raises, and every row that a file claims is accounted for.

python tests/fuzz/input_files.py --kind parquet --count 100000 --first-seed 0

Prints one JSON object: files scanned, files and row groups found broken, readers killed (Arrow may
end a process; the night then counts the file as unreadable), and the seeds of failures.
"""

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipelines.lake.inputs import list_inputs
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.nightly.plan.rows import RowSettings
from pipelines.nightly.plan.scan import FileKeys, ScanTask, scan_file

ENDINGS = {"parquet": "a.parquet", "csv": "a.csv", "gzip": "a.csv.gz", "delta": "delta"}
_ROWS = 40
_AT_ONCE = 20_000  # seeds of a process


def base_table() -> pa.Table:
    ids = [f"p{i:04d}" for i in range(_ROWS)]
    return pa.table(
        {
            "product_id": ids,
            "title": [f"red wool shirt {i}" if i % 7 else None for i in range(_ROWS)],
            "image": pa.array([bytes([i]) * 30 for i in range(_ROWS)], pa.binary()),
            "category": pa.array([i % 3 for i in range(_ROWS)]),
            "updated_at": pa.array(range(_ROWS), pa.timestamp("us")),
        }
    )


def parquet_bytes(dice: random.Random) -> bytes:
    """A small file in one of the forms that writers choose."""
    return _written(
        dice.choice(["none", "snappy", "zstd", "gzip"]),
        dice.random() < 0.5,
        dice.choice(["1.0", "2.0"]),
        dice.random() < 0.2,
        dice.choice([10, 20, 40]),
    )


@cache  # writing takes longer than reading
def _written(
    compression: str, is_dictionary: bool, version: str, has_checksum: bool, rows: int
) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        base_table(),
        sink,
        compression=compression,
        use_dictionary=is_dictionary,
        data_page_version=version,
        write_page_checksum=has_checksum,
        row_group_size=rows,
    )
    return sink.getvalue()


@cache
def csv_bytes() -> bytes:
    lines = [f'{i},"red, wool ""shirt"" {i}",2026-01-01\n' for i in range(_ROWS)]
    return ("product_id,title,updated_at\n" + "".join(lines)).encode()


def mutated(data: bytes, dice: random.Random) -> bytes:
    """One to four changes: bits, bytes, pieces cut, doubled or overwritten; footers more often."""
    content = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        end = len(content)
        start = max(0, end - 1200) if dice.random() < 0.5 else 0
        at = dice.randrange(start, end) if end > start else 0
        kind = dice.randrange(6)
        if kind == 0 and end:
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 1 and end:
            content[at] = dice.choice([0, 0x7F, 0x80, 0xFF, dice.randrange(256)])
        elif kind == 2:
            del content[at : at + dice.randint(1, 64)]
        elif kind == 3:
            content[at:at] = content[at : at + dice.randint(1, 64)]
        elif kind == 4:
            content[at : at + 8] = dice.randbytes(8)
        else:
            del content[at:]
    return bytes(content)


def write_case(folder: Path, kind: str, seed: int) -> Path:
    """The mutated input of a seed."""
    dice = random.Random(seed)
    path = folder / ENDINGS[kind]
    if kind == "parquet":
        path.write_bytes(mutated(parquet_bytes(dice), dice))
    elif kind == "csv":
        path.write_bytes(mutated(csv_bytes(), dice))
    else:
        path.write_bytes(mutated(gzip.compress(csv_bytes(), 1), dice))
    return path


def scan(path: Path) -> FileKeys:
    settings = RowSettings(Columns(), ("title",), uses_pictures=True)
    (file,) = list_inputs([str(path)], {})
    task = ScanTask(Storage.of(path.parent / "runs"), file, settings, 4)
    try:
        return scan_file(task)
    finally:
        if file.is_csv:
            task.data().delete()


def check(found: FileKeys) -> str:
    """What became of the file: ok, row_groups, or the reason why it cannot be used."""
    summary, rows = found.summary, found.records["row"]
    if summary.problem is not None:
        assert len(rows) == 0
        return summary.problem
    lost = sum(summary.visible_in(i) for i in summary.bad_row_groups)
    assert len(rows) + lost == summary.num_rows, (len(rows), lost, summary.num_rows)
    assert (np.unique(rows) == rows).all()
    return "row_groups" if summary.bad_row_groups else "ok"


def run_seeds(kind: str, first: int, count: int, place: str) -> None:
    """Write a line per seed as it begins, so that a killed process names its seed."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder, Path(place).open("w") as log:
        for seed in range(first, first + count):
            log.seek(0)
            log.write(f"{seed} {json.dumps(counts)}\n")
            log.flush()
            try:
                counts[check(scan(write_case(Path(folder), kind, seed)))] += 1
            except Exception as error:  # noqa: BLE001 - what the seeds are tried for
                counts[f"FAILED {seed} {type(error).__name__}: {str(error)[:200]}"] += 1
    Path(place + ".json").write_text(json.dumps(counts))


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run(kind: str, first: int, count: int, *, seconds: float = 1e9) -> dict:
    """All seeds in processes of their own."""
    started, counts = time.monotonic(), Counter()
    context = multiprocessing.get_context("spawn")  # a fork of threads may hang
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder, "log"))
        waiting = [
            (at, min(at + _AT_ONCE, first + count)) for at in range(first, first + count, _AT_ONCE)
        ]
        waiting.reverse()
        num_files = 0
        while waiting and time.monotonic() - started < seconds:
            start, end = waiting.pop()
            process = context.Process(target=run_seeds, args=(kind, start, end - start, place))
            process.start()
            process.join(timeout=1200)
            if process.exitcode is None:
                process.kill()
            done = Path(place + ".json")
            if done.exists():
                counts.update(json.loads(done.read_text()))
                done.unlink()
                num_files += end - start
                continue
            number, _, counted = Path(place).read_text().partition("\n")[0].partition(" ")
            killer = int(number)
            counts.update(json.loads(counted))
            counts[f"KILLED {killer} ({process.exitcode})"] += 1
            num_files += killer + 1 - start
            waiting += [(killer + 1, end)] if killer + 1 < end else []
    spent = time.monotonic() - started
    return {"kind": kind, "files": num_files, "seconds": round(spent, 1), **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=[kind for kind in ENDINGS if kind != "delta"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        found = run(
            arguments.kind, arguments.first_seed, arguments.count, seconds=arguments.seconds
        )
        print(json.dumps(found, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
