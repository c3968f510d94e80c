"""What never reaches a log, a table or a summary.

Three looks at a text: values whose name says that they are secret, values whose shape does, and
the values of the process' own secret variables.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

from pipelines.errors import Summary
from pipelines.lake.uris import SECRET_NAME, without_user

HIDDEN = "***"
_SHORTEST_VARIABLE = 6

_SECRET_FIELD = re.compile(SECRET_NAME, re.IGNORECASE)
_SECRET_VARIABLE = re.compile(rf"{SECRET_NAME}|_(?:PAT|DSN|KEY)$", re.IGNORECASE)
_VALUE = r"""(?:(?P<quote>\\*["'])(?:(?!(?P=quote)).)*|[^\s"',;&)}\]<]+)"""
_NAME = rf"(?<!\w)[\w.$-]{{0,80}}?{SECRET_NAME}[\w-]{{0,20}}"

# Group `kept` stays, the rest is masked.
_NAMED = (
    re.compile(r"(?P<kept>(?:authorization|cookie)\\*[\"']?\s*[:=]\s*\\*[\"']?)[^\n\"'\\]+", re.I),
    # name=value, "name": value, --name value, ("name", "value"), PASSWORD 'value', <name>value
    re.compile(
        rf"(?P<kept>{_NAME}(?:\\*[\"']?\s*(?:=>|=|:|%3d)|\\*[\"']\s*,|\s+(?=[\"'])|>)\s*"
        rf"(?:\\*[\"']?value\\*[\"']?\s*[:=]\s*)?){_VALUE}",
        re.IGNORECASE,
    ),
    re.compile(rf"(?P<kept>(?<!\S)-{{1,2}}[\w-]{{0,80}}?{SECRET_NAME}[\w-]{{0,20}}\s+)\S+", re.I),
    re.compile(r"(?P<kept>(?<!\S)(?:-u|--user)\s+)[^\s:]+:\S+"),
    re.compile(r"(?P<kept>\blogin\s+\S+\s+password\s+)\S+"),
    re.compile(
        r"(?P<kept>(?:[?&]|--storage-option[ =])(?:key|code|X-(?:Amz|Goog)-\w+)=)[^\s&\"']+"
    ),
    re.compile(r"(?P<kept>(?:[Bb]earer|BEARER)\s+)[\w.~+/=-]{8,}"),
    re.compile(r"(?P<kept>(?:[Bb]asic|BASIC)\s+)(?=[a-z]*[A-Z0-9=+/])[\w+/=-]{6,}"),
    re.compile(
        r"(?P<kept>hooks\.slack\.com/|discord(?:app)?\.com/api/webhooks/"
        r"|webhook\.office\.com/|api\.telegram\.org/bot)[^\s\"'<>]+"
    ),
    re.compile(r"(?P<kept>%3A%2F%2F)[^\s/&]{0,200}?%40", re.IGNORECASE),
    re.compile(r"(?P<kept>(?<![\w/]))[\w.+-]{1,100}:[^\s@/:\"']{4,200}@(?=[\w-]*[A-Za-z][\w.-]*)"),
)
_SHAPED = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)",
            r"\beyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*",
            r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}(?:[\s:,/]+[A-Za-z0-9/+=]{40})?",
            r"\b(?:gh[opsur]|glpat|gho|hf|npm|pat|xox[a-z]|xapp|sk|rk|pk|shpat|dop_v1|dapi"
            r"|gsk|xai|r8|dckr_pat|lin_api|sq0atp|sq0csp)"
            r"[_-](?=[\w-]*\d)[\w-]{16,}",
            r"\bgithub_pat_\w{20,}",
            r"\bpypi-[\w-]{16,}",
            r"\bdapi[0-9a-f]{32}",
            r"\bAIza[\w-]{30,}",
            r"\bya29\.[\w.-]{16,}",
            r"\bhvs\.[\w-]{16,}",
            r"\bAGE-SECRET-KEY-1\w{16,}",
            r"\bSG\.[\w-]{16,}\.[\w-]{16,}",
        )
    ),
    re.DOTALL,
)


def redact(text: str) -> str:
    """Return the text with secrets masked: see the module."""
    return _redacted(text, _own_secrets())


def _redacted(text: str, own: Sequence[str]) -> str:
    text = _SHAPED.sub(HIDDEN, without_user(text, f"{HIDDEN}@"))
    for pattern in _NAMED:
        text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
    for secret in own:
        text = text.replace(secret, HIDDEN)
    return text


def _own_secrets() -> list[str]:
    """Return the values of the process' secret variables now, in each spelling."""
    values = [os.environ.get(name, "") for name in os.environ if _is_secret_variable(name)]
    return [
        form
        for value in values
        if len(value) >= _SHORTEST_VARIABLE
        for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])
    ]


@cache  # the search takes 30 us, an environment has dozens of names, a summary hundreds of texts
def _is_secret_variable(name: str) -> bool:
    return _SECRET_VARIABLE.search(name) is not None


def to_json(summary: Summary) -> str:
    """One line of strict JSON: no NaN, numpy scalars and paths as plain values, secrets masked."""
    return json.dumps(masked(summary), ensure_ascii=False, allow_nan=False)


class RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def masked(value: Any) -> Any:
    """Return the value as plain JSON types, with secrets masked."""
    return _masked(value, _own_secrets())


def _masked(value: Any, own: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            _redacted(str(key), own): HIDDEN
            if _SECRET_FIELD.search(str(key))
            else _masked(item, own)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item, own) for item in value]
    if isinstance(value, str):
        return _redacted(value, own)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _masked(value.item(), own) if hasattr(value, "item") else _redacted(str(value), own)
