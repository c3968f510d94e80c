#!/usr/bin/env python3
"""Answer a question about a result table: as a terminal table, CSV, Parquet or JSON."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.analysis import table
from pipelines.analysis.output import FORMATS, format_of, render, write
from pipelines.analysis.request import QUERIES, Request, answer
from pipelines.command.parser import add_column_option, add_storage_option, command_parser
from pipelines.command.run import run_command
from pipelines.lake.catalog import parse_columns
from pipelines.lake.kinds import check_file
from pipelines.lake.storage import Storage, parse_options


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--table", required=True, metavar="T", help="folder that extract_catalog.py wrote (URI)")
    add("--query", default="summary", metavar="Q", help=f"one of {', '.join(QUERIES)}")
    add("--sql", metavar="SQL", help="a query over extractions, values, quarantine, categories")
    add("--at", metavar="MOMENT", help="the table at a version number, run id or ISO time")
    add("--since", metavar="MOMENT", help="earlier moment for drift and new-values")
    add("--products", metavar="URI", help="products table, for categories and specs")
    add_column_option(options, roles="product_id, category, specs, updated_at or a text")
    add("--by-category", action="store_true", help="split coverage and fill-gain by category")
    add("--attribute", action="append", default=[], metavar="A", help="only this attribute")
    add("--category", action="append", default=[], metavar="C", help="only this category")
    add("--mapping", metavar="FILE", help="normalize values anew by this rules.toml")
    add("--threshold", type=float, default=0.5, help="low-confidence lists values below it")
    add("--bins", type=int, default=10, help="bins of the histogram")
    add("--top", type=int, default=20, metavar="N", help="values per attribute in top-values")
    add(
        "--single-valued",
        action="append",
        metavar="A",
        help="attribute that must have one value; without any, conflicts infers them",
    )
    add(
        "--max-multiple",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="an attribute with several values in at most this share of products is single-valued",
    )
    add("--limit", type=int, metavar="N", help="rows of the answer at most")
    add("--rows", type=int, default=50, metavar="N", help="rows that the terminal table shows")
    add("--format", metavar="F", help=f"{', '.join(FORMATS)}; else what --out ends in, else table")
    add("--out", metavar="URI", help="write here instead of to the terminal")
    add_storage_option(options)
    return options  # fmt: skip


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, answer, report."""
    args = parser().parse_args(argv)
    storage_options = parse_options(args.storage_option)
    kind = format_of(args.out, args.format)
    request = Request(
        query=args.query, sql=args.sql, since=args.since, by_category=args.by_category,
        threshold=args.threshold, bins=args.bins, top=args.top, limit=args.limit,
        single_valued=args.single_valued, max_multiple=args.max_multiple,
    )  # fmt: skip
    opened = table(
        args.table, at=args.at, products=args.products, columns=parse_columns(args.column),
        mapping=args.mapping, options=storage_options,
    )  # fmt: skip
    opened = replace(opened, attributes=tuple(args.attribute), categories=tuple(args.category))
    frame = answer(opened, request)
    summary = {"query": args.sql or args.query, "version": opened.commit.version, "format": kind}
    if kind == "table":
        print(render(frame, rows=args.rows))
        return summary
    out = None if args.out is None else Storage.of(args.out, storage_options)
    if out is not None:
        check_file(out, opened.storage)
    num_rows = write(frame, out=out, kind=kind)
    return summary | {"rows": num_rows, "out": args.out}


if __name__ == "__main__":
    run_command(main)
