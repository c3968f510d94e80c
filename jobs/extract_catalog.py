#!/usr/bin/env python3
"""The nightly job: extract attribute values of a whole catalogue; only what changed is worked on.

A run that was cut short is found and finished by running the job again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command import add_storage_option, command_parser, run_command
from pipelines.nightly.erase import erase, read_ids
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.model_folder import ModelFolder
from pipelines.nightly.recipe import load_nightly_config
from pipelines.nightly.settings import NightlyConfig, NightlyRequest
from pipelines.storage import Storage, parse_options


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--model", metavar="M", help="model directory (path or URI); not needed with --erase")
    add(
        "--input",
        action="append",
        default=[],
        metavar="I",
        help="products: Parquet or CSV file, folder of them, or Delta table (URI); repeatable",
    )
    add("--output", required=True, metavar="T", help="folder of the result tables (URI)")
    add("--run-id", metavar="R", help="name of the run; a run that was published is not repeated")
    add("--full", action="store_true", help="extract every row again, changed or not")
    add("--limit", type=int, metavar="N", help="extract at most N rows; nothing is marked vanished")
    add("--plan-only", action="store_true", help="only say what a run would do and cost")
    add(
        "--replay-quarantine",
        action="store_true",
        help="also extract quarantined rows and read unreadable files again",
    )
    add("--erase", metavar="FILE", help="remove the product ids of this file (one a line) instead")
    add("--vacuum", action="store_true", help="with --erase: remove them from the history as well")
    add("--recipe", metavar="FILE", help="TOML recipe (default: recipes/nightly.toml)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one recipe field, such as gate.max_row_change=1.0; repeatable",
    )
    add_storage_option(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Plan, erase or run."""
    arguments = parser().parse_args(argv)
    options = parse_options(arguments.storage_option)
    recipe = Storage.of(arguments.recipe, options) if arguments.recipe else None
    config = load_nightly_config(recipe, arguments.set)
    output = Storage.of(arguments.output, options)
    if arguments.erase:
        ids = read_ids(Storage.of(arguments.erase, options))
        return erase(output, ids, is_vacuumed=arguments.vacuum, config=config.lock)
    if not arguments.model:
        raise ValueError("found no --model, expected a model directory; name one")
    request = NightlyRequest(
        inputs=tuple(arguments.input),
        run_id=arguments.run_id,
        is_full=arguments.full,
        is_replay=arguments.replay_quarantine,
        limit=arguments.limit,
        options=options,
    )
    job = NightlyJob(_model(arguments.model, options, config), output, config)
    return job.plan_only(request) if arguments.plan_only else job.run(request)


def _model(uri: str, options: dict[str, str], config: NightlyConfig) -> ModelFolder:
    return ModelFolder(
        Storage.of(uri, options).uri,
        options,
        precision=config.precision,
        num_threads=config.threads_per_model_worker,
    )


if __name__ == "__main__":
    run_command(main)
