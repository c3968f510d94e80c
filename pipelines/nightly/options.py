"""The command line of the jobs that keep a table up to date, shared by both of them."""

import argparse
from collections.abc import Sequence
from typing import Any

from pipelines.command.parser import add_set_option, add_storage_option
from pipelines.lake.storage import Storage, parse_options
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import (
    NIGHTLY,
    NightlyConfig,
    NightlyRequest,
    load_nightly_config,
)
from pipelines.nightly.work.model_folder import ModelFolder


def add_nightly_options(parser: argparse.ArgumentParser, *, verb: str) -> None:
    """All but the model; `verb` says what is done to a row."""
    add = parser.add_argument
    add(
        "--input",
        action="append",
        default=[],
        metavar="I",
        help="products: Parquet or CSV file, folder of them, or Delta table (URI); repeatable",
    )
    add("--output", required=True, metavar="T", help="folder of the result tables (URI)")
    add("--run-id", metavar="R", help="name of the run; a run that was published is not repeated")
    add("--full", action="store_true", help=f"{verb} every row again, changed or not")
    add("--limit", type=int, metavar="N", help=f"{verb} at most N rows; nothing is marked vanished")
    add(
        "--allow-vanished",
        action="store_true",
        help="publish although more products vanish than gate.max_vanished_rate",
    )
    add(
        "--allow-empty",
        action="store_true",
        help="publish although the input has no row: every product vanishes",
    )
    add("--plan-only", action="store_true", help="only say what a run would do and cost")
    add(
        "--recipe",
        default=NIGHTLY,
        help="a shipped recipe's name, or the path or URI of a .toml file",
    )
    add_set_option(parser, example="gate.max_row_change=1.0")
    add_storage_option(parser)


def nightly_config(arguments: argparse.Namespace, defaults: Sequence[str] = ()) -> NightlyConfig:
    """Return what --recipe and --set ask for; `defaults` are overrides before --set's."""
    options = parse_options(arguments.storage_option)
    names = ("allow_empty", "allow_vanished")
    allowed = [f"gate.{name}=true" for name in names if getattr(arguments, name)]
    overrides = [*defaults, *arguments.overrides, *allowed]
    return load_nightly_config(arguments.recipe, overrides, options=options)


def run_nightly(
    arguments: argparse.Namespace,
    kind: type[ModelFolder],
    config: NightlyConfig,
    *,
    is_replay: bool = False,
) -> dict[str, Any]:
    """Plan or run with the model that --model names."""
    if not arguments.model:
        raise ValueError("found no --model, expected a model directory; name one")
    options = parse_options(arguments.storage_option)
    output = Storage.of(arguments.output, options)
    model = kind(
        Storage.of(arguments.model, options).uri,
        options,
        precision=config.precision,
        num_threads=config.threads_per_model_worker,
    )
    request = NightlyRequest(
        inputs=tuple(arguments.input),
        run_id=arguments.run_id,
        is_full=arguments.full,
        is_replay=is_replay,
        limit=arguments.limit,
        options=options,
    )
    job = NightlyJob(model, output, config)
    return job.plan_only(request) if arguments.plan_only else job.run(request)
