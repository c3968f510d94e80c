#!/usr/bin/env python3
"""Measures the system against its limits and its peers; see `make bench` and `make bench-quick`.

python tests/benchmarks/bench.py [--quick] [--only in_process components ...] [--out FILE]

Prints a table per section and one JSON object last. Peers take turns with the system, so ratios
hold on a busy machine; rates and shares of the peak need an idle one.
"""

import argparse
import importlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]
# Ray's workers must find the project and the peers.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])

import transformers  # noqa: E402
from speed.report import rounded  # noqa: E402
from speed.timing import machine  # noqa: E402
from speed.workbench import FULL, QUICK, SMOKE, Workbench  # noqa: E402

from ulsdram_core.process import tune_process  # noqa: E402

# In this order: what `make bench-quick` promises comes first.
SECTIONS = {
    "crf": "speed.crf_section",
    "in_process": "speed.in_process",
    "components": "speed.components",
    "training": "speed.training",
    "ray": "speed.ray_run",
    "ablation": "speed.ablation",
    "scaling": "speed.scaling",
    "gpu": "speed.gpu",
    "tries": "speed.tries",
}
HEADLINES = (
    "extract_vs_released",
    "ray_vs_limit",
    "train_step_vs_plain",
    "crf_decode_vs_pytorch_crf",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="under 10 minutes on 2 cores")
    size.add_argument("--smoke", action="store_true", help="tiny models, measures nothing")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    tune_process(options.threads)
    facts = machine()
    print(json.dumps(facts), flush=True)
    sizes = QUICK if options.quick else SMOKE if options.smoke else FULL
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    documents: dict[str, dict] = {}
    try:
        bench = Workbench(sizes, folder, tiny=options.smoke)
        for name in (name for name in SECTIONS if name in options.only):
            documents[name] = measure(name, bench)
            if options.out:  # after each section: a later one may take an hour
                write(options.out, {"machine": facts, "sections": documents})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(rounded(headlines(documents))))


def measure(name: str, bench: Workbench) -> dict:
    """Run one section and print it."""
    began = time.monotonic()
    section = importlib.import_module(SECTIONS[name]).run(bench)
    print(f"{section.text()}\n   ({time.monotonic() - began:.0f} s)", flush=True)
    return section.document()


def write(path: Path, everything: dict) -> None:
    """All figures so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(everything), indent=1) + "\n")


def headlines(documents: dict[str, dict]) -> dict[str, object]:
    """The four ratios that `make bench-quick` promises; null for sections that did not run."""
    merged = {key: value for document in documents.values() for key, value in document.items()}
    return {name: merged.get(name) for name in HEADLINES}


if __name__ == "__main__":
    main()
