#!/usr/bin/env python3
"""Write one self-contained HTML page about a result table: runs, coverage, quality, products."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.analysis import table
from pipelines.command.parser import (
    add_column_option,
    add_picture_options,
    add_storage_option,
    command_parser,
    picture_rules,
)
from pipelines.command.run import run_command
from pipelines.lake.catalog import parse_columns
from pipelines.lake.kinds import check_file
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage, parse_options
from pipelines.report.build import ReportRequest, build_report
from pipelines.report.model_view import ModelView


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--table", required=True, metavar="T", help="folder that extract_catalog.py wrote (URI)")
    add("--out", required=True, metavar="FILE", help="the HTML file to write (path or URI)")
    add("--products", metavar="URI", help="products table, for texts, pictures and gold")
    add("--model", metavar="M", help="model directory, for heatmaps of the values' words")
    add("--baseline-model", metavar="M2", help="second model, shown beside the first on every card")
    add("--cards", type=int, default=200, metavar="N", help="products shown, 0 to 5,000")
    add("--at", metavar="MOMENT", help="the table at a version number, run id or ISO time")
    add("--since", metavar="MOMENT", help="drift against this moment (default: the run before)")
    add("--title", default="Extraction report", help="heading of the page")
    add_column_option(options, roles="product_id, image, category, gold or a text")
    add_storage_option(options)
    add_picture_options(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, build, write."""
    args = parser().parse_args(argv)
    options = parse_options(args.storage_option)
    _check(args)
    columns = parse_columns(args.column)
    reader = (
        ProductReader(Storage.of(args.products, options), columns, picture_rules(args))
        if args.products
        else None
    )
    request = ReportRequest(
        table=table(args.table, at=args.at, options=options),
        products=reader,
        model=ModelView.load(Storage.of(args.model, options)) if args.model else None,
        baseline=(
            ModelView.load(Storage.of(args.baseline_model, options))
            if args.baseline_model
            else None
        ),
        since=args.since,
        num_cards=args.cards,
        title=args.title,
    )
    out = Storage.of(args.out, options)
    check_file(out, request.table.storage, *([] if reader is None else [reader.storage]))
    report = build_report(request)
    page = report.html.encode()
    out.write_bytes(page)
    print(f"open {args.out}")
    return {
        "out": args.out,
        "bytes": len(page),
        "cards": report.num_cards,
        "heatmaps": report.num_maps,
        "products": report.catalog.num_live,
        "version": report.catalog.version,
    }


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.cards <= 5000:
        raise ValueError(f"found --cards {args.cards}, expected 0 to 5,000")
    if (args.model or args.baseline_model) and not args.products:
        raise ValueError("found a model without products, expected both; name --products")
    if args.baseline_model and not args.model:
        raise ValueError("found --baseline-model alone, expected --model too; name both")


if __name__ == "__main__":
    run_command(main)
