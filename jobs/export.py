#!/usr/bin/env python3
"""Write a plain-Parquet snapshot of the extractions table: a wide and a long form."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.analysis.export import ExportConfig, export
from pipelines.command.parser import add_storage_option, command_parser
from pipelines.command.run import run_command
from pipelines.lake.storage import Storage, parse_options


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--table", required=True, metavar="T", help="folder that extract_catalog.py wrote (URI)")
    add("--out", required=True, metavar="U", help="folder of the snapshots (URI)")
    add("--keep", type=int, default=2, metavar="N", help="snapshots to keep, the new one included")
    add("--include-vanished", action="store_true", help="export products that vanished as well")
    add("--min-confidence", type=float, default=0.0, metavar="C", help="leave out values below it")
    add_storage_option(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Export once."""
    arguments = parser().parse_args(argv)
    options = parse_options(arguments.storage_option)
    config = ExportConfig(
        keep=arguments.keep,
        include_vanished=arguments.include_vanished,
        min_confidence=arguments.min_confidence,
    )
    return export(Storage.of(arguments.table, options), Storage.of(arguments.out, options), config)


if __name__ == "__main__":
    run_command(main)
