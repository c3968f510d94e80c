"""The command line that all jobs share: its parser, the options of several jobs, exit codes.

A request that cannot be understood is an exception, which `run.py` reports like any other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_REQUEST, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = (
    f"Exit codes: {EXIT_DONE} done, {EXIT_FAILED} the run failed, "
    f"{EXIT_WRONG_REQUEST} the request was wrong, {EXIT_INTERRUPTED} interrupted."
)


class UsageError(ValueError):
    """The command line cannot be understood."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each option's help where there is one worth telling."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS) or action.default == []:
            return action.help
        return super()._get_help_string(action)


class JobParser(argparse.ArgumentParser):
    """An argument parser whose complaint is an exception, so that it is reported like any other."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def command_parser(description: str, *, prog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser that already has the options every job takes."""
    parser = JobParser(
        prog=prog,
        description=description,
        epilog=EXIT_CODES,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    add_shared_options(parser)
    return parser


def add_storage_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of every job that reads or writes by URI; `parse_options` reads it."""
    parser.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="endpoint_url, access_key_id, ... of the storage behind the URIs; repeatable; "
        "else the usual environment variables count",
    )


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Add where pictures named by address may be read from; see `picture_rules`."""
    parser.add_argument(
        "--picture-host", action="append", default=[], metavar="HOST",
        help="host, host:port or network that pictures may come from although its address is "
        "private (repeat for several)",
    )  # fmt: skip
    parser.add_argument(
        "--picture-root", action="append", default=[], metavar="URI",
        help="folder or bucket besides the table's own that pictures may lie in (repeat)",
    )  # fmt: skip


def picture_rules(args: argparse.Namespace) -> PictureAddressConfig:
    """Return what the options of `add_picture_options` say."""
    return PictureAddressConfig(hosts=tuple(args.picture_host), roots=tuple(args.picture_root))


def add_set_option(
    parser: argparse.ArgumentParser, *, example: str, of: str = "the recipe"
) -> None:
    """Add the option of every job with settings, kept as `overrides`; `apply_override` reads it."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override one value of {of}, such as {example}; repeatable",
    )


def add_column_option(parser: argparse.ArgumentParser, *, roles: str) -> None:
    """Add the option of every job that reads a products table; `parse_columns` reads it."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help=f"where the products table keeps {roles}; repeatable",
    )


def num_workers(arguments: argparse.Namespace) -> int:
    """Return what --workers says, checked."""
    if arguments.workers < 1:
        raise UsageError(f"--workers is {arguments.workers}, expected at least 1")
    return int(arguments.workers)


def local_folder(text: str) -> Path:
    """Return what --out says, of a job that writes to this machine only."""
    place = Storage.of(text)
    if not place.is_local:
        raise UsageError(f"--out is {text}, expected a folder on this machine; copy it afterwards")
    return Path(place.path)


def add_subcommand(commands: Any, name: str, *, description: str) -> argparse.ArgumentParser:
    """Return a parser below `command_parser(...).add_subparsers()`, with the shared options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description,
        description=description,
        epilog=EXIT_CODES,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    # Given before the command's name, they must survive the subcommand's defaults.
    add_shared_options(parser, default=argparse.SUPPRESS)
    return parser


def add_shared_options(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    parser.add_argument(
        "--summary-out",
        metavar="URI",
        default=default,
        help="also write the JSON summary (the last line printed) to this path or URI",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default or False,
        help="log details, and tracebacks of errors",
    )
