#!/usr/bin/env python3
"""Train ULS-DRAM on MAE-like data (English, many attributes)."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command.run import run_command
from pipelines.train.extractor.job import train
from pipelines.train.extractor.options import train_parser, train_request


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the command line and train."""
    parser = train_parser(__doc__, recipe="mae_small")
    return train(train_request(parser.parse_args(argv)))


if __name__ == "__main__":
    run_command(main)
