#!/usr/bin/env python3
"""Make the result tables what they were at an earlier version; readers see one new version.

It works as long as vacuum has left the old version's files (maintenance.vacuum_hours).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command.parser import add_storage_option, command_parser
from pipelines.command.run import run_command
from pipelines.lake.storage import Storage, parse_options
from pipelines.nightly.rollback import rollback
from pipelines.nightly.table.lock import LockConfig


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--table", required=True, metavar="T", help="folder that extract_catalog.py wrote (URI)")
    add(
        "--to",
        required=True,
        metavar="MOMENT",
        help="version number, run id or ISO time (`analyze.py --query runs` lists them)",
    )
    add_storage_option(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Roll back once."""
    arguments = parser().parse_args(argv)
    table = Storage.of(arguments.table, parse_options(arguments.storage_option))
    return rollback(table, arguments.to, config=LockConfig())


if __name__ == "__main__":
    run_command(main)
