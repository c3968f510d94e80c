#!/usr/bin/env python3
"""Explain one product: values in the text, confidence, attribute range, heatmaps of its words."""

import argparse
import shutil
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
from pipelines.lake.catalog import parse_columns
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage, parse_options
from pipelines.report.explain import explain, explanation_page, explanation_text, find_product
from pipelines.report.model_view import ModelView
from ulsdram_core.schema import Product


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add("--model", required=True, metavar="M", help="model directory (path or URI)")
    add("--baseline-model", metavar="M2", help="second model, explained beside the first")
    add("--products", metavar="URI", help="products table; with --product-id")
    add("--product-id", metavar="ID", help="which product of the table")
    add("--title", metavar="TEXT", help="instead of a table: the product's title")
    add("--description", metavar="TEXT", help="with --title: its description")
    add("--image", action="append", default=[], metavar="FILE", help="with --title: a picture")
    add("--category", metavar="NAME", help="with --title: its category")
    add(
        "--tokens",
        nargs="+",
        metavar="WORD",
        help="heatmaps of these words only (default: of every word)",
    )
    add("--html", metavar="FILE", help="write a page here instead of text to the terminal")
    add("--color", choices=["auto", "always", "never"], default="auto", help="terminal colours")
    add_column_option(options, roles="product_id, image, category, gold or a text")
    add_storage_option(options)
    add_picture_options(options)
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, explain, show."""
    args = parser().parse_args(argv)
    options = parse_options(args.storage_option)
    product = _product(args, options)
    models = [uri for uri in (args.model, args.baseline_model) if uri]
    views = [ModelView.load(Storage.of(uri, options)) for uri in models]
    found = [explain(view, product, args.tokens) for view in views]
    if args.html:
        Storage.of(args.html, options).write_bytes(explanation_page(found).encode())
        print(f"open {args.html}")
    else:
        width = shutil.get_terminal_size((100, 40)).columns
        for explanation in found:
            print(explanation_text(explanation, style=Style.of(args.color), width=width) + "\n")
    return {
        "product_id": product.product_id,
        "html": args.html,
        "models": [
            {
                "name": e.view.name,
                "model_id": e.view.model_id,
                "product_status": e.extraction.status.value,
                "reason": e.extraction.reason,
                "values": len(e.extraction.values),
                "range": len(e.extraction.range),
                "heatmaps": len(e.maps),
            }
            for e in found
        ],
    }


def _product(args: argparse.Namespace, options: dict[str, str]) -> Product:
    if args.products and args.product_id and args.title is None:
        columns = parse_columns(args.column)
        reader = ProductReader(Storage.of(args.products, options), columns, picture_rules(args))
        return find_product(reader, args.product_id)
    if args.title is None or args.products or args.product_id:
        raise ValueError(
            "found neither a product of a table nor a title, or both; expected --products and "
            "--product-id, or --title"
        )
    texts = {"title": args.title}
    if args.description:
        texts["description"] = args.description
    pictures = tuple(_picture(Storage.of(uri, options)) for uri in args.image)
    return Product("(typed in)", texts, pictures, args.category)


def _picture(place: Storage) -> bytes:
    try:
        return place.read_bytes()
    except OSError as error:
        raise ValueError(f"--image {place.uri} cannot be read: {error}") from error


if __name__ == "__main__":
    run_command(main)
