#!/usr/bin/env python3
"""Pre-train a text and a picture encoder on unlabelled products (e-CLIP, a reconstruction).

Run it on what `prepare.py pairs` made. A run that was cut short is resumed by running it again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command.parser import command_parser, num_workers
from pipelines.command.recipes import recipe_names
from pipelines.command.run import run_command
from pipelines.lake.storage import Storage, parse_options
from pipelines.train.eclip.job import PretrainRequest, pretrain
from pipelines.train.eclip.recipe import ECLIP, load_eclip_recipe
from pipelines.train.extractor.options import add_run_options


def parser() -> argparse.ArgumentParser:
    """The options of this job."""
    options = command_parser(__doc__ or "")
    add = options.add_argument
    add(
        "--recipe",
        default="eclip_small",
        help=f"path or URI of a .toml file, or one of: {', '.join(recipe_names(ECLIP))}",
    )
    add("--init-from", metavar="MODEL", help="start from this e-CLIP model directory")
    add("--random-init", action="store_true", help="ignore pretrained weights (for trials)")
    add_run_options(
        options, made_by="jobs/prepare.py pairs", example="pretrain.targets.kind=identity"
    )
    return options


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the command line and pre-train."""
    arguments = parser().parse_args(argv)
    options = parse_options(arguments.storage_option)
    request = PretrainRequest(
        recipe=load_eclip_recipe(arguments.recipe, arguments.overrides, options=options),
        data=Storage.of(arguments.data, options),
        output=Storage.of(arguments.out, options),
        num_workers=num_workers(arguments),
        init_from=Storage.of(arguments.init_from, options) if arguments.init_from else None,
        random_init=arguments.random_init,
        restart=arguments.restart,
    )
    return pretrain(request)


if __name__ == "__main__":
    run_command(main)
