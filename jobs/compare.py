#!/usr/bin/env python3
"""What would change: compare two tables, or two models on one catalogue, before a promotion.

With a gate (--max-changed-share, --min-kept-share) a difference too large ends with exit code 1.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command.parser import (
    add_column_option,
    add_picture_options,
    add_storage_option,
    command_parser,
    picture_rules,
)
from pipelines.command.run import run_command
from pipelines.command.terminal import Style
from pipelines.compare.differences import GateLimits
from pipelines.compare.job import CompareRequest, ComparisonRefusedError, run_comparison
from pipelines.lake.catalog import parse_columns
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage, parse_options


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add(
        "--table",
        action="append",
        default=[],
        metavar="T",
        help="twice: folders that extract_catalog.py wrote, the old one first; T@MOMENT is the "
        "table at a version number, run id or ISO time",
    )
    add("--model", action="append", default=[], metavar="M", help="twice: models, old one first")
    add(
        "--input",
        metavar="URI",
        help="products table: what models are tried on; for tables: texts, pictures and gold",
    )
    add("--limit", type=int, default=1000, metavar="N", help="products that models are tried on")
    add("--attribute", action="append", default=[], metavar="A", help="compare only this attribute")
    add("--max-changed-share", type=float, metavar="X", help="gate: share of answers that differ")
    add("--min-kept-share", type=float, metavar="X", help="gate: share of old answers that stay")
    add("--out", metavar="URI", help="also write everything to a .json or .html file")
    add("--color", choices=["auto", "always", "never"], default="auto", help="terminal colours")
    add_column_option(options, roles="product_id, image, category, gold or a text")
    add_storage_option(options)
    add_picture_options(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, compare, report."""
    args = parser().parse_args(argv)
    options = parse_options(args.storage_option)
    columns = parse_columns(args.column)
    request = CompareRequest(
        tables=tuple(args.table),
        models=tuple(args.model),
        products=ProductReader(Storage.of(args.input, options), columns, picture_rules(args))
        if args.input
        else None,
        limit=args.limit,
        attributes=tuple(args.attribute),
        limits=GateLimits(args.max_changed_share, args.min_kept_share),
        out=Storage.of(args.out, options) if args.out else None,
        options=options,
    )
    try:
        found = run_comparison(request, style=Style.of(args.color))
    except ComparisonRefusedError as error:
        print(error.text)
        raise
    print(found.text)
    return found.summary


if __name__ == "__main__":
    run_command(main)
