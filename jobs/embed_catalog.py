#!/usr/bin/env python3
"""Keep unit vectors of a whole catalogue in the lake; only what changed is worked on.

Runs like the nightly job, with an e-CLIP model: incremental, exactly once, one commit. The table's
columns are those of `extractions`, with `text_vector`, `picture_vector` and `joint_vector`.
With --nearest it answers instead: the most similar products of a table that it wrote.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.analysis.nearest import VectorTable
from pipelines.command.parser import command_parser
from pipelines.command.run import run_command
from pipelines.lake.storage import Storage, parse_options
from pipelines.lake.tables import VECTORS
from pipelines.nightly.options import add_nightly_options, nightly_config, run_nightly
from pipelines.nightly.work.embedding_folder import EclipFolder

# Rows of vectors hold no values, which the gate would take for a broken model.
NO_VALUES = ("gate.max_null_rate=1.0", "gate.max_values_drop=1.0")


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--model", metavar="M", help="e-CLIP model directory (path or URI)")
    add_nightly_options(options, verb="embed")
    add(
        "--nearest",
        action="append",
        default=[],
        metavar="ID",
        help="print the products most similar to this one instead; repeatable",
    )
    add("-k", type=int, default=10, help="products per --nearest")
    add("--by", choices=VECTORS, default="joint_vector", help="column that --nearest compares")
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Embed, plan, or answer."""
    arguments = parser().parse_args(argv)
    if arguments.nearest:
        options = parse_options(arguments.storage_option)
        return _nearest(Storage.of(arguments.output, options), arguments)
    return run_nightly(arguments, EclipFolder, nightly_config(arguments, NO_VALUES))


def _nearest(output: Storage, arguments: argparse.Namespace) -> dict[str, Any]:
    table = VectorTable.open(output)
    queries = table.vectors(arguments.nearest, column=arguments.by)
    found = table.nearest(queries, k=arguments.k, column=arguments.by)
    for row in found.iter_rows(named=True):
        query = arguments.nearest[row["query"]]
        print(f"{query}\t{row['rank']}\t{row['product_id']}\t{row['similarity']:.4f}")
    return {"queries": len(arguments.nearest), "answers": found.height}


if __name__ == "__main__":
    run_command(main)
