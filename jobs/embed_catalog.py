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

from pipelines.command import add_storage_option, command_parser, run_command
from pipelines.eclip.embedding_model import VECTORS, EclipFolder
from pipelines.eclip.nearest import VectorTable
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.recipe import load_nightly_config
from pipelines.nightly.settings import NightlyRequest
from pipelines.storage import Storage, parse_options

# Rows of vectors hold no values, which the gate would take for a broken model.
NO_VALUES = "gate.max_null_rate=1.0"


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--model", metavar="M", help="e-CLIP model directory (path or URI)")
    add(
        "--input",
        action="append",
        default=[],
        metavar="I",
        help="products: Parquet or CSV file, folder of them, or Delta table (URI); repeatable",
    )
    add("--output", required=True, metavar="T", help="folder of the table (URI)")
    add("--run-id", metavar="R", help="name of the run; a run that was published is not repeated")
    add("--full", action="store_true", help="embed every row again, changed or not")
    add("--limit", type=int, metavar="N", help="embed at most N rows; nothing is marked vanished")
    add("--plan-only", action="store_true", help="only say what a run would do and cost")
    add(
        "--nearest",
        action="append",
        default=[],
        metavar="ID",
        help="print the products most similar to this one instead; repeatable",
    )
    add("-k", type=int, default=10, help="products per --nearest")
    add("--by", choices=VECTORS, default="joint_vector", help="column that --nearest compares")
    add("--recipe", metavar="FILE", help="TOML recipe (default: recipes/nightly.toml)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe field")
    add_storage_option(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Embed, plan, or answer."""
    arguments = parser().parse_args(argv)
    options = parse_options(arguments.storage_option)
    output = Storage.of(arguments.output, options)
    if arguments.nearest:
        return _nearest(output, arguments)
    if not arguments.model:
        raise ValueError("found no --model, expected an e-CLIP model directory; name one")
    recipe = Storage.of(arguments.recipe, options) if arguments.recipe else None
    config = load_nightly_config(recipe, [NO_VALUES, *arguments.set])
    model = EclipFolder(
        Storage.of(arguments.model, options).uri,
        options,
        precision=config.precision,
        num_threads=config.threads_per_model_worker,
    )
    request = NightlyRequest(
        inputs=tuple(arguments.input),
        run_id=arguments.run_id,
        is_full=arguments.full,
        limit=arguments.limit,
        options=options,
    )
    job = NightlyJob(model, output, config)
    return job.plan_only(request) if arguments.plan_only else job.run(request)


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
