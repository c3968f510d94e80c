#!/usr/bin/env python3
"""Turn raw benchmark files, or any table with known values, into a products table with gold."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.cluster.tasks import map_here, map_tasks
from pipelines.command.parser import (
    add_picture_options,
    add_set_option,
    add_storage_option,
    add_subcommand,
    command_parser,
    picture_rules,
)
from pipelines.command.recipes import apply_override, checked
from pipelines.command.run import run_command
from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage, parse_options
from pipelines.prepare.config import PrepareConfig, TaggedColumns
from pipelines.prepare.pairs.run import PairConfig, PairRequest, prepare_pairs
from pipelines.prepare.run import prepare


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Prepare what the command line asks for."""
    args = _parser().parse_args(argv)
    if args.kind == "pairs":
        return prepare_pairs(
            _pair_request(args), map_here if args.executor == "local" else map_tasks
        )
    roles = TaggedColumns.model_fields if args.kind == "tagged" else {}
    config = PrepareConfig(
        kind=args.kind,
        input=args.input,
        output=args.output,
        images=args.images,
        columns=TaggedColumns(**{role: getattr(args, role) for role in roles}),
        keep=tuple(args.keep) if args.kind == "tagged" else (),
        use_gold=not (args.kind == "tagged" and args.ignore_gold),
        corrections=args.corrections,
        splits=args.splits,
        drop_leaks=args.drop_leaks,
        valid_share=args.valid_share,
        test_share=args.test_share,
        max_pictures=args.max_pictures,
        pictures=picture_rules(args) if args.kind == "tagged" else PictureAddressConfig(),
        storage_options=parse_options(args.storage_option),
    )
    return prepare(config)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__ or "")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    helps = {
        "mae": "MAE: folders train/ val/ test/ of JSON files; pictures in mumie-img/",
        "mepave": "MEPAVE: jdai.jave.fashion.{train,valid,test}[.txt]; pictures in product_images/",
        "tagged": "any Parquet, Delta, CSV or JSON lines with text and known values (or spans)",
    }
    for kind, text in helps.items():
        sub = add_subcommand(kinds, kind, description=text)
        _add_options(sub)
        if kind == "tagged":
            _add_tagged_options(sub)
            add_picture_options(sub)
    _add_pair_options(
        add_subcommand(
            kinds,
            "pairs",
            description="clean pairs of text and picture with catalogue ids, for pretrain_eclip.py",
        )
    )
    return parser


def _add_pair_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--in", dest="input", required=True, metavar="URI", help="products: Parquet folder or file")
    add("--out", dest="output", required=True, metavar="URI", help="folder to make or replace")
    add("--model", metavar="URI", help="e-CLIP model; pairs it finds least alike are left out")
    add("--hold-out", metavar="FILE", help="product ids (one a line) to keep away from training")
    add("--executor", choices=("ray", "local"), default="ray", help="local: in this process")
    add_set_option(
        parser,
        example="noise.min_words=3, duplicates.max_distance=4, "
        "columns.image=photo or catalog_column=group_id",
        of="the settings",
    )
    add_storage_option(parser)


def _pair_request(args: argparse.Namespace) -> PairRequest:
    document: dict[str, Any] = {}
    for override in args.overrides:
        apply_override(document, override, example="noise.min_words=3")
    options = parse_options(args.storage_option)
    return PairRequest(
        Storage.of(args.input, options),
        Storage.of(args.output, options),
        checked(PairConfig, document, of="--set"),
        Storage.of(args.model, options) if args.model else None,
        frozenset(_lines(Storage.of(args.hold_out, options)) if args.hold_out else ()),
    )


def _lines(place: Storage) -> list[str]:
    return [line for line in place.read_bytes().decode().splitlines() if line]


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--in", dest="input", required=True, metavar="URI", help="folder (or file) to read")
    add(
        "--out",
        dest="output",
        required=True,
        metavar="URI",
        help="folder to make; "
        "train/, valid/, test/, report.json, report.md; only a prepared folder is replaced",
    )
    add("--images", metavar="URI", help="folder that picture names are relative to")
    add(
        "--corrections",
        metavar="URI",
        help="decisions that override gold: .csv or .parquet with "
        "product_id, attribute, value, correct (yes/no), right_value",
    )
    add(
        "--splits",
        choices=("auto", "made"),
        default="auto",
        help="auto: keep the input's splits "
        "and make missing ones out of train; made: make all of them, by title group",
    )
    add(
        "--drop-leaks",
        action="store_true",
        help="drop products whose title, but for numbers and "
        "sizes, is also in a later split (train < valid < test)",
    )
    add("--valid-share", type=float, default=0.1, help="part of the title groups for a made valid")
    add("--test-share", type=float, default=0.1, help="part of the title groups for a made test")
    add("--max-pictures", type=int, default=4, help="pictures kept per product")
    add_storage_option(parser)


def _add_tagged_options(parser: argparse.ArgumentParser) -> None:
    for role, field in TaggedColumns.model_fields.items():
        parser.add_argument(
            f"--{role.replace('_', '-')}",
            metavar="COLUMN",
            help=f"{field.description} Looked for under its usual names if not given.",
        )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="carry a further column along, as strings; repeatable",
    )
    parser.add_argument(
        "--ignore-gold",
        action="store_true",
        help="label from the known values even where there are labelled spans",
    )


if __name__ == "__main__":
    run_command(main)
