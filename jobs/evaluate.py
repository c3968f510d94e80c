#!/usr/bin/env python3
"""Score a model on a labelled table: every metric, per attribute, per slice."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command.parser import (
    add_column_option,
    add_storage_option,
    command_parser,
    num_workers,
)
from pipelines.command.run import run_command
from pipelines.evaluate.job import EvaluateRequest, evaluate
from pipelines.lake.storage import Storage, parse_options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the command line, score the model, print the table."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="model directory or its URI")
    add("--data", required=True, help="prepared folder (its test/ is scored) or its URI")
    add("--split", default="test", help="which folder of --data")
    add(
        "--slice",
        dest="slices",
        action="append",
        default=[],
        metavar="NAME=EXPR",
        help="score a part too: a boolean expression over the table's columns, such as "
        '\'shoes=col("category") == "Shoes"\' or \'seen=col("image").is_not_null()\'; may be '
        "repeated",
    )
    add("--out", help="write all figures as JSON to this path or URI")
    add("--workers", type=int, default=1, help="scoring actors")
    add_column_option(
        parser,
        roles="product_id, title, image, category, gold and so on (else where the model's recipe "
        "says)",
    )
    add_storage_option(parser)
    arguments = parser.parse_args(argv)
    options = parse_options(arguments.storage_option)
    request = EvaluateRequest(
        model=Storage.of(arguments.model, options),
        data=Storage.of(arguments.data, options),
        split=arguments.split,
        slices=tuple(arguments.slices),
        columns=tuple(arguments.column),
        output=Storage.of(arguments.out, options) if arguments.out else None,
        num_workers=num_workers(arguments),
    )
    found = evaluate(request)
    print(found.table)
    if request.output is not None:
        found.write(request.output)
    return found.summary


if __name__ == "__main__":
    run_command(main)
