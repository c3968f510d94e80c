"""Which options a job of this release has, asked of the job itself."""

import contextlib
import importlib
import io
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path


def missing_options(script: Path, words: Sequence[str]) -> list[str]:
    """Those of a command's `--options` that the job does not know."""
    first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    wanted = [word.partition("=")[0] for word in words if word.startswith("--")]
    known = _options(script.stem, tuple(words[:first]))
    return [word for word in wanted if word not in known]


@cache
def _options(job: str, subcommand: tuple[str, ...]) -> set[str]:
    main = importlib.import_module(f"jobs.{job}").main
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*subcommand, "--help"])
    return set(re.findall(r"--[a-z][a-z-]*", shown.getvalue()))
