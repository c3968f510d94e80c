#!/usr/bin/env python3
"""The nightly job: extract attribute values of a whole catalogue; only what changed is worked on.

A run that was cut short is found and finished by running the job again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command.parser import command_parser
from pipelines.command.run import run_command
from pipelines.lake.storage import Storage, parse_options
from pipelines.nightly.options import add_nightly_options, nightly_config, run_nightly
from pipelines.nightly.table.erase import erase, read_ids
from pipelines.nightly.work.model_folder import ModelFolder


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--model", metavar="M", help="model directory (path or URI); not needed with --erase")
    add_nightly_options(options, verb="extract")
    add(
        "--replay-quarantine",
        action="store_true",
        help="also extract quarantined rows and read unreadable files again",
    )
    add(
        "--erase",
        metavar="FILE",
        help="remove the product ids of this file instead: one a line, or .jsonl: JSON strings",
    )
    add("--vacuum", action="store_true", help="with --erase: remove them from the history as well")
    add("--allow-missing", action="store_true", help="with --erase: ids not found are no failure")
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Plan, erase or run."""
    arguments = parser().parse_args(argv)
    config = nightly_config(arguments)
    if arguments.erase:
        options = parse_options(arguments.storage_option)
        ids = read_ids(Storage.of(arguments.erase, options))
        output = Storage.of(arguments.output, options)
        return erase(
            output,
            ids,
            is_vacuumed=arguments.vacuum,
            config=config.lock,
            is_missing_allowed=arguments.allow_missing,
        )
    return run_nightly(arguments, ModelFolder, config, is_replay=arguments.replay_quarantine)


if __name__ == "__main__":
    run_command(main)
