#!/usr/bin/env python3
"""Review queue: export the least certain values as CSV, import the decisions as corrections."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.analysis import QueryError, table
from pipelines.analysis.review import (
    add_context,
    export_queue,
    least_certain,
    merge_decisions,
    read_corrections_table,
    read_reviewed,
    write_corrections_table,
)
from pipelines.command.parser import add_column_option, add_storage_option, command_parser
from pipelines.command.run import run_command
from pipelines.lake.catalog import parse_columns
from pipelines.lake.kinds import check_file
from pipelines.lake.storage import Storage, parse_options


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("action", choices=["export", "import"], help="write a queue, or read reviewed ones")
    add("--table", metavar="T", help="export: folder that extract_catalog.py wrote (URI)")
    add("--products", metavar="URI", help="export: products table, for the text around each value")
    add_column_option(options, roles="product_id or a text (export)")
    add("--limit", type=int, default=200, metavar="N", help="export: values at most")
    add("--per-attribute", type=int, metavar="N", help="export: values of one attribute at most")
    add("--threshold", type=float, default=1.01, help="export: only values below this confidence")
    add("--corrections", metavar="URI", help="export: leave out what this table already decides")
    add("--in", dest="inputs", nargs="+", default=[], metavar="URI", help="import: reviewed CSVs")
    add(
        "--out",
        required=True,
        metavar="URI",
        help="export: the CSV; import: the corrections table (Parquet), updated if it exists",
    )
    add_storage_option(options)
    return options  # fmt: skip


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, export or import, report."""
    args = parser().parse_args(argv)
    options = parse_options(args.storage_option)
    out = Storage.of(args.out, options)
    read = [args.table, args.products, args.corrections, *(args.inputs or [])]
    check_file(out, *(Storage.of(uri, options) for uri in read if uri))
    return _export(args, out, options) if args.action == "export" else _import(args, out, options)


def _export(args: argparse.Namespace, out: Storage, options: dict[str, str]) -> dict[str, Any]:
    if args.table is None or args.limit < 1 or (args.per_attribute or 1) < 1:
        raise QueryError("export needs --table, and --limit and --per-attribute of at least 1")
    opened = table(
        args.table, products=args.products, columns=parse_columns(args.column), options=options
    )
    decided = (
        None
        if args.corrections is None
        else read_corrections_table(Storage.of(args.corrections, options))
    )
    values = least_certain(
        opened, limit=args.limit, per_attribute=args.per_attribute,
        threshold=args.threshold, decided=decided,
    )  # fmt: skip
    num_values = export_queue(add_context(values, opened.catalog), out)
    print(f"{num_values} values to review in {args.out}: fill `correct` with yes or no")
    return {"action": "export", "values": num_values, "out": args.out}


def _import(args: argparse.Namespace, out: Storage, options: dict[str, str]) -> dict[str, Any]:
    if not args.inputs:
        raise QueryError("import needs the reviewed files; name them with --in")
    files = [read_reviewed(Storage.of(uri, options)) for uri in args.inputs]
    known = read_corrections_table(out) if out.exists() else None
    decisions = [decision for file in files for decision in file.decisions]
    merged = merge_decisions(decisions, known=known)
    write_corrections_table(merged, out)
    print(f"{len(decisions)} decisions imported, {merged.height} in {args.out}")
    return {
        "action": "import",
        "decisions": len(decisions),
        "undecided": sum(file.num_undecided for file in files),
        "restored": sum(file.num_restored for file in files),
        "corrections": merged.height,
        "out": args.out,
    }


if __name__ == "__main__":
    run_command(main)
