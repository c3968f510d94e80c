#!/usr/bin/env python3
"""See the whole product work: draw a catalogue, train, run two nights, analyse, report."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.command.parser import command_parser, local_folder
from pipelines.command.run import run_command
from pipelines.demo.run import DemoRequest, run_demo


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the command line and run the demo."""
    parser = command_parser(__doc__ or "")
    add = parser.add_argument
    add("--out", default="demo-out", help="folder of the demo; only its own is ever overwritten")
    add("--labelled", type=int, default=2000, help="labelled products drawn for training")
    add("--catalogue", type=int, default=1000, help="products of the nightly catalogue")
    add("--epochs", type=int, default=8, help="passes over the labelled products")
    add("--seed", type=int, default=0, help="seed of the catalogue")
    add("--cards", type=int, default=200, help="products shown in the report")
    arguments = parser.parse_args(argv)
    request = DemoRequest(
        out=local_folder(arguments.out),
        num_labelled=arguments.labelled,
        num_catalogue=arguments.catalogue,
        epochs=arguments.epochs,
        seed=arguments.seed,
        cards=arguments.cards,
    )
    return run_demo(request, lambda line: print(line, flush=True))


if __name__ == "__main__":
    run_command(main)
