#!/usr/bin/env python3
"""Run the paper's tables on your data: every compared system, every ablation."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.benchmark.paper.job import BenchmarkRequest, list_rows, run_benchmark
from pipelines.benchmark.paper.settings import BENCHMARK, load_benchmark, parse_image_encoder
from pipelines.benchmark.paper.source import Source
from pipelines.benchmark.paper.suites import SUITES
from pipelines.command.parser import (
    add_set_option,
    add_storage_option,
    command_parser,
    local_folder,
)
from pipelines.command.run import run_command
from pipelines.lake.storage import parse_options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the command line, run what is missing, print one line per run and the tables."""
    arguments = _parser().parse_args(argv)
    encoders: dict[str, Any] = {}
    if arguments.text_encoder:
        encoders["text_encoder"] = {"name": arguments.text_encoder}
    if arguments.second_text_encoder:
        encoders["second_text_encoder"] = {"name": arguments.second_text_encoder}
    if arguments.image_encoder:
        encoders["image_encoder"] = parse_image_encoder(arguments.image_encoder)
    options = parse_options(arguments.storage_option)
    config = load_benchmark(
        arguments.recipe, arguments.overrides, encoders=encoders, options=options
    )
    if arguments.list:
        rows = list_rows(arguments.suite, config)
        print("\n".join(rows))
        return {"rows": len(rows), "systems": len({row.split()[1] for row in rows})}
    source = Source(
        data=arguments.data,
        config=config,
        limit=arguments.limit,
        unlabelled=arguments.unlabelled,
        options=tuple(options.items()),
    )
    request = BenchmarkRequest(
        suite=arguments.suite,
        source=source,
        out=local_folder(arguments.out),
        seeds=arguments.seeds,
        workers=arguments.workers,
        budget_minutes=arguments.budget_minutes,
        held_out=_read_names(arguments.attributes),
    )
    summary = run_benchmark(request, lambda line: print(line, flush=True))
    print(Path(summary["report"]).read_text(encoding="utf-8"))
    return summary


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__ or "")
    add = parser.add_argument
    add("--suite", default="all", choices=[*SUITES, "all"], help="which table or figure")
    add("--data", default="demo", help="prepared folder (train/, test/) or its URI, or demo")
    add("--out", default="benchmark-out", help="folder for results, caches and the report")
    add("--seeds", type=int, default=1, help="runs per system")
    add("--limit", type=int, help="most training products, evenly drawn")
    add("--workers", type=int, default=1, help="runs at the same time, in processes")
    add("--budget-minutes", type=float, help="start no run that would not fit any more")
    add("--list", action="store_true", help="name every row and its parts, run nothing")
    add("--attributes", metavar="FILE", help="hold these attributes out (one a line): zero-shot")
    add("--unlabelled", help="products for K-PLUG's pre-training; default: all training texts")
    add("--text-encoder", help="checkpoint of the text encoder; default: tiny, from scratch")
    add("--second-text-encoder", help="Table 1's other checkpoint")
    add("--image-encoder", help="ARCHITECTURE[@WEIGHTS], such as resnet152@enum:...")
    add("--recipe", default=BENCHMARK, help="benchmark recipe, by name, path or URI")
    add_set_option(parser, example="settings.epochs=3 or fusion.normalize_regions=false")
    add_storage_option(parser)
    return parser


def _read_names(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    if not Path(path).is_file():
        raise ValueError(f"--attributes {path}: found no such file")
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    names = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise ValueError(f"--attributes {path} names no attribute, expected one a line")
    return names


if __name__ == "__main__":
    run_command(main)
