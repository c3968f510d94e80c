#!/usr/bin/env python3
"""Measure pre-trained encoders on five tasks, beside the same encoders as they came.

Category classification, binary labels (adult products), product matching, product clustering, and
attribute extraction from few labels. The data folder holds train/, valid/ and test/.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.benchmark.eclip.job import TasksRequest, run_tasks
from pipelines.benchmark.eclip.tasks import ProbeSettings
from pipelines.benchmark.eclip.vectors import PICTURE_HASH
from pipelines.command.parser import add_set_option, add_storage_option, command_parser
from pipelines.command.recipes import apply_override, checked
from pipelines.command.run import run_command
from pipelines.lake.storage import Storage, parse_options
from pipelines.lake.tables import Columns
from pipelines.train.eclip.recipe import load_eclip_recipe
from pipelines.train.extractor.recipe import load_recipe
from ulsdram_core.eclip.finetune import FineTuneConfig


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--data", required=True, help="folder or URI with train/, valid/ and test/")
    add("--out", required=True, help="folder or URI; gets report.md, report.json, vectors/")
    repeated: dict[str, Any] = {"action": "append", "default": []}
    add("--model", metavar="NAME=URI", help="e-CLIP model directory; repeatable", **repeated)
    add("--baseline", metavar="RECIPE", help="also its encoders as they came, before any training")
    add_set_option(options, example="image.size=64", of="the --baseline recipe")
    add("--category", metavar="COLUMN", help="classify by this column; repeatable", **repeated)
    add(
        "--binary",
        metavar="NAME=EXPR",
        help="recognise rows of a boolean polars expression, such as "
        '\'adult=col("sub_category") == "Innerwear"\'; repeatable',
        **repeated,
    )
    add(
        "--match",
        metavar="COLUMN",
        help=f"find rows of equal COLUMN under other texts; {PICTURE_HASH} means the very same "
        "picture; repeatable",
        **repeated,
    )
    add("--cluster", metavar="COLUMN", help="cluster and compare with this column", **repeated)
    add("--extract", metavar="RECIPE", help="train this extractor with each system's encoders")
    add("--extract-set", metavar="KEY=VALUE", help="override of the --extract recipe", **repeated)
    add("--extract-shares", default="0.01,0.1", help="shares of the labels to train on")
    add("--extract-steps", type=int, default=200, help="least steps, by more epochs")
    add("--extract-test-rows", type=int, help="score extraction on the first N test rows")
    add(
        "--fine-tune",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="also fine-tune on --category and --binary",
    )
    add("--probe-rows", type=int, default=10_000, help="most rows a linear probe is fitted on")
    add("--probe-steps", type=int, default=40, help="L-BFGS steps of a linear probe")
    add("--template", default="{}", help="text around a class name for zero-shot")
    add("--seeds", type=int, default=3, help="seeds of clustering and extraction")
    add("--folds", type=int, default=5, help="folds of the matching probe, by group")
    add("--limit", type=int, help="look at the first N rows of every split")
    add("--column", metavar="ROLE=NAME", help="a column's name, such as image=photo", **repeated)
    add_storage_option(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the command line, run the tasks, print the tables."""
    arguments = parser().parse_args(argv)
    options = parse_options(arguments.storage_option)
    columns: dict[str, Any] = {}
    for pair in arguments.column:
        apply_override(columns, pair, example="image=photo")
    request = TasksRequest(
        data=Storage.of(arguments.data, options),
        output=Storage.of(arguments.out, options),
        models=dict(_named(text, options) for text in arguments.model),
        baseline=load_eclip_recipe(arguments.baseline, arguments.overrides, options=options)
        if arguments.baseline
        else None,
        categories=tuple(arguments.category),
        binaries=tuple(arguments.binary),
        clusters=tuple(arguments.cluster),
        matches=tuple(arguments.match),
        extract=load_recipe(arguments.extract, arguments.extract_set, options=options)
        if arguments.extract
        else None,
        extract_shares=_shares(arguments.extract_shares),
        extract_steps=arguments.extract_steps,
        extract_test_rows=arguments.extract_test_rows,
        seeds=arguments.seeds,
        folds=arguments.folds,
        limit=arguments.limit,
        fine_tune=FineTuneConfig(epochs=arguments.fine_tune) if arguments.fine_tune else None,
        probe=ProbeSettings(arguments.probe_rows, arguments.probe_steps),
        columns=checked(Columns, columns, of="--column"),
        template=arguments.template,
    )
    summary = run_tasks(request)
    print(Storage.of(summary["report"], options).read_bytes().decode())
    return summary


def _named(text: str, options: dict[str, str]) -> tuple[str, Storage]:
    name, separator, uri = text.partition("=")
    if not separator or not name or not uri:
        raise ValueError(f"--model {text!r}: expected NAME=URI, such as e-CLIP=RUN/model")
    return name, Storage.of(uri, options)


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--extract-shares {text!r}: expected numbers like 0.01,0.1") from error
    if not all(0 < share <= 1 for share in shares):
        raise ValueError(f"--extract-shares {text!r}: expected shares above 0 and up to 1")
    return shares


if __name__ == "__main__":
    run_command(main)
