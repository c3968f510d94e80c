"""What every job shares: options, logging, the one-line error, the summary and the exit code.

A job builds its parser with `command_parser`, returns its summary as a dict from `main(argv)`, and
ends with `run_command(main)`. Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 130
interrupted (128 + SIGINT, as shells count).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from pipelines.lake.storage import Storage, parse_options
from ulsdram_core.errors import UlsdramError

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_REQUEST, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = (
    f"Exit codes: {EXIT_DONE} done, {EXIT_FAILED} the run failed, "
    f"{EXIT_WRONG_REQUEST} the request was wrong, {EXIT_INTERRUPTED} interrupted."
)
HIDDEN = "***"

Summary = Mapping[str, Any]
Main = Callable[[list[str] | None], Summary]

_SECRET_NAME = r"(?:secret|passw(?:or)?d|(?:session|sas|auth)_?token|(?:access|account|api)_?key)"
_SECRET_FIELD = re.compile(_SECRET_NAME, re.IGNORECASE)
_SECRET_PAIR = re.compile(
    rf"([\w-]*{_SECRET_NAME}[\w-]*[\"']?\s*[=:]\s*[\"']?)([^\s\"',;&}}]+)", re.IGNORECASE
)
_URI_USER = re.compile(r"(?<=://)[^/@\s]+@")
_log = logging.getLogger(__name__)


class UsageError(ValueError):
    """The command line cannot be understood."""


class RunFailedError(RuntimeError):
    """The run ended as a failure that it can explain: one line, a summary, exit code 1."""

    def __init__(self, message: str, *, summary: Summary | None = None) -> None:
        super().__init__(message)
        self.summary = dict(summary or {})


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each option's help where there is one worth telling."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS) or action.default == []:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is an exception, so that it is reported like any other."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def command_parser(description: str, *, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser that already has the options every job takes."""
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=EXIT_CODES,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    _add_shared_options(parser)
    return parser


def add_storage_option(parser: argparse.ArgumentParser) -> None:
    """The option of every job that reads or writes by URI; `storage.parse_options` reads it."""
    parser.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="endpoint_url, access_key_id, ... of the storage behind the URIs; repeatable; "
        "else the usual environment variables count",
    )


def add_set_option(
    parser: argparse.ArgumentParser, *, example: str, of: str = "the recipe"
) -> None:
    """The option of every job with settings, kept as `overrides`; `apply_override` reads it."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override one value of {of}, such as {example}; repeatable",
    )


def add_column_option(parser: argparse.ArgumentParser, *, roles: str) -> None:
    """The option of every job that reads a products table; `parse_columns` reads it."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help=f"where the products table keeps {roles}; repeatable",
    )


def num_workers(arguments: argparse.Namespace) -> int:
    """What --workers says, checked."""
    if arguments.workers < 1:
        raise UsageError(f"--workers is {arguments.workers}, expected at least 1")
    return int(arguments.workers)


def local_folder(text: str) -> Path:
    """What --out says, of a job that writes to this machine only."""
    place = Storage.of(text)
    if not place.is_local:
        raise UsageError(f"--out is {text}, expected a folder on this machine; copy it afterwards")
    return Path(place.path)


def add_subcommand(commands: Any, name: str, *, description: str) -> argparse.ArgumentParser:
    """A parser below `command_parser(...).add_subparsers()`; takes the shared options too."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description,
        description=description,
        epilog=EXIT_CODES,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    # Given before the command's name, they must survive the subcommand's defaults.
    _add_shared_options(parser, default=argparse.SUPPRESS)
    return parser


def run_command(main: Main, argv: Sequence[str] | None = None) -> NoReturn:
    """Run `main` on the command line, print its summary as the last line, and exit the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    started = time.monotonic()
    target = None
    try:
        shared = _shared_options(arguments)
        configure_logging(verbose=shared.verbose)
        target = _summary_target(shared)
    except ValueError as error:
        code, summary = _explain(error)
    else:
        code, summary = _run_on_cluster(main, arguments)
    summary = {"job": _job_name(), "seconds": round(time.monotonic() - started, 3), **summary}
    raise SystemExit(_deliver(summary, target, code=code))


def configure_logging(*, verbose: bool = False) -> None:
    """Log to stderr: our own progress always, everything with `verbose`; secrets are masked."""
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    for name in ("jobs", "pipelines", "ulsdram_core"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)


def redact(text: str) -> str:
    """`text` with credentials masked: user parts of URIs, `secret=...` pairs, secret variables."""
    text = _SECRET_PAIR.sub(rf"\g<1>{HIDDEN}", _URI_USER.sub(f"{HIDDEN}@", text))
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_FIELD.search(name):
            text = text.replace(value, HIDDEN)
    return text


def to_json(summary: Summary) -> str:
    """One line of strict JSON: no NaN, numpy scalars and paths as plain values, secrets masked."""
    return json.dumps(_plain(summary), ensure_ascii=False, allow_nan=False)


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _add_shared_options(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
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


def _shared_options(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(prog=_job_name(), add_help=False, allow_abbrev=False)
    _add_shared_options(parser)
    # Not every job takes it; those that do write their summary to the same storage.
    add_storage_option(parser)
    return parser.parse_known_args(arguments)[0]


def _run_on_cluster(main: Main, arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """Run `main`; the cluster that it joined is left, one that others use stays."""
    was_connected = _is_connected()
    result = _run(main, arguments)
    if not was_connected:
        _leave_cluster()
    return result


def _run(main: Main, arguments: list[str]) -> tuple[int, dict[str, Any]]:
    try:
        return EXIT_DONE, {"status": "ok", **main(arguments)}
    except RunFailedError as error:
        _print_error(_one_line(error))
        return EXIT_FAILED, {"status": "failed", "error": _one_line(error), **error.summary}
    except KeyboardInterrupt:
        _print_error("interrupted")
        return EXIT_INTERRUPTED, {"status": "failed", "error": "interrupted"}
    except Exception as error:  # noqa: BLE001 - the process boundary: every failure gets its code
        return _explain(error)


def _explain(error: Exception) -> tuple[int, dict[str, Any]]:
    wrong = _wrong_request(error)
    if wrong is None:
        _log.error("the run failed", exc_info=error)
        line = f"the run failed: {type(error).__name__}: {_one_line(error)}"
        _print_error(line)
        return EXIT_FAILED, {"status": "failed", "error": redact(line)}
    _log.debug("the request was wrong", exc_info=error)
    line = _one_line(wrong)
    _print_error(line)
    return EXIT_WRONG_REQUEST, {"status": "wrong request", "error": line}


def _wrong_request(error: BaseException) -> Exception | None:
    """The user's mistake behind `error`, also when it crossed a worker's process boundary."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        cause = getattr(current, "cause", None)
        current = cause if isinstance(cause, BaseException) else current.__cause__
    # A remote ValueError arrives as a class that is both the error and its wrapper: prefer the
    # innermost, whose message has no remote traceback in it.
    for link in reversed(chain):
        if isinstance(link, UlsdramError):
            return link
    if isinstance(error, ValueError) and not hasattr(error, "traceback_str"):
        return error
    return None


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        text = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or error.title}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False)
        )
    else:
        text = "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
    return redact(" ".join(text.split()))


def _print_error(line: str) -> None:
    sys.stderr.write(f"{_job_name()}: error: {redact(line)}\n")
    sys.stderr.flush()


def _job_name() -> str:
    return Path(sys.argv[0]).name


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _leave_cluster() -> None:
    """Workers' forwarded output must not land after the summary; without Ray there is none."""
    if _is_connected():
        sys.modules["ray"].shutdown()


def _summary_target(shared: argparse.Namespace) -> Storage | None:
    if shared.summary_out is None:
        return None
    options = parse_options(shared.storage_option)
    try:
        place = Storage.of(shared.summary_out, options)
        is_folder = place.is_folder()
        if place.is_local and not is_folder:
            Path(place.path).parent.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # every store has errors of its own
        raise UsageError(_not_writable(shared.summary_out, error)) from error
    if is_folder:
        raise UsageError(f"--summary-out {place.uri} is a folder, expected a file to write")
    return place


def _deliver(summary: Summary, target: Storage | None, *, code: int) -> int:
    line = to_json(summary)
    if target is not None:
        try:
            target.write_bytes(f"{line}\n".encode())
        except Exception as error:  # noqa: BLE001 - the summary is printed whatever the store says
            _print_error(_not_writable(target.uri, error))
            code = code or EXIT_FAILED
    sys.stderr.flush()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return code


def _not_writable(uri: str, error: Exception) -> str:
    return f"--summary-out {uri} cannot be written: {_one_line(error)}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): HIDDEN if _SECRET_FIELD.search(str(key)) else _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain(value.item()) if hasattr(value, "item") else redact(str(value))
