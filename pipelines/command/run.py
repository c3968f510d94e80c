"""What every job shares: options, logging, the one-line error, the summary and the exit code.

A job builds its parser with `command_parser`, returns its summary as a dict from `main(argv)`, and
ends with `run_command(main)`. Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 130
interrupted (128 + SIGINT, as shells count).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from pipelines.command.parser import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_WRONG_REQUEST,
    JobParser,
    UsageError,
    add_shared_options,
    add_storage_option,
)
from pipelines.command.secrets import RedactingFormatter, redact, to_json
from pipelines.errors import RunFailedError, Summary
from pipelines.lake.storage import Storage, parse_options
from ulsdram_core.errors import UlsdramError

Main = Callable[[list[str] | None], Summary]

_log = logging.getLogger(__name__)


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
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    for name in ("jobs", "pipelines", "ulsdram_core"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)


def _shared_options(arguments: list[str]) -> argparse.Namespace:
    parser = JobParser(prog=_job_name(), add_help=False, allow_abbrev=False)
    add_shared_options(parser)
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
    """Return the user's mistake behind `error`, also when it came from a worker's process."""
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
