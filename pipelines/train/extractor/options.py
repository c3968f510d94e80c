"""The command line of the training jobs, shared by all of them."""

import argparse

from pipelines.command.parser import add_set_option, add_storage_option, command_parser, num_workers
from pipelines.command.recipes import recipe_names
from pipelines.lake.storage import Storage, parse_options
from pipelines.train.extractor.job import TrainRequest
from pipelines.train.extractor.recipe import load_recipe


def train_parser(description: str, *, recipe: str | None) -> argparse.ArgumentParser:
    """Build the parser; `recipe` is the default one, None makes the option required."""
    parser = command_parser(description)
    add = parser.add_argument
    add(
        "--recipe",
        default=recipe,
        required=recipe is None,
        help=f"path or URI of a .toml file, or one of: {', '.join(recipe_names())}",
    )
    add("--init-from", metavar="MODEL", help="start from the weights of this model directory")
    add(
        "--init-encoders",
        metavar="ECLIP",
        help="take both encoders and the tokenizer from this model of jobs/pretrain_eclip.py; "
        "for full use keep image.size at the size it was trained with",
    )
    add("--corrections", metavar="TABLE", help="reviewers' decisions that override gold")
    add(
        "--target-precision",
        type=float,
        metavar="P",
        help="calibrate each attribute to this precision, above 0 and below 1",
    )
    add(
        "--random-init",
        action="store_true",
        help="ignore pretrained weights, building any architecture offline (for trials)",
    )
    add_run_options(parser, made_by="jobs/prepare.py", example="fit.epochs=5")
    return parser


def add_run_options(parser: argparse.ArgumentParser, *, made_by: str, example: str) -> None:
    """Add the options of every training run: its data, its output, how it is run."""
    add = parser.add_argument
    add("--data", required=True, help=f"folder or URI with train/ and valid/ ({made_by})")
    add("--out", required=True, help="folder or URI; gets model/, checkpoints/, metrics.jsonl")
    add("--workers", type=int, default=1, help="Ray Train workers, one GPU each if there are any")
    add("--restart", action="store_true", help="forget an interrupted or finished run")
    add_set_option(parser, example=example)
    add_storage_option(parser)


def train_request(arguments: argparse.Namespace) -> TrainRequest:
    """Turn parsed arguments into a request."""
    if arguments.init_from and arguments.init_encoders:
        raise ValueError("found both --init-from and --init-encoders, expected one of them")
    options = parse_options(arguments.storage_option)

    def place(uri: str | None) -> Storage | None:
        return Storage.of(uri, options) if uri else None

    overrides = list(arguments.overrides)
    if arguments.target_precision is not None:
        overrides.append(f"calibration.target_precision={arguments.target_precision}")
    return TrainRequest(
        recipe=load_recipe(arguments.recipe, overrides, options=options),
        data=Storage.of(arguments.data, options),
        output=Storage.of(arguments.out, options),
        num_workers=num_workers(arguments),
        init_from=place(arguments.init_from),
        corrections=place(arguments.corrections),
        init_encoders=place(arguments.init_encoders),
        random_init=arguments.random_init,
        restart=arguments.restart,
    )
