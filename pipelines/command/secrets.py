"""Credentials, which never reach a log, a table or a summary: masked in texts, logs and JSON."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from pipelines.errors import Summary

HIDDEN = "***"
_SECRET_NAME = r"(?:secret|passw(?:or)?d|(?:session|sas|auth)_?token|(?:access|account|api)_?key)"
_SECRET_FIELD = re.compile(_SECRET_NAME, re.IGNORECASE)
_SECRET_PAIR = re.compile(
    rf"([\w-]*{_SECRET_NAME}[\w-]*[\"']?\s*[=:]\s*[\"']?)([^\s\"',;&}}]+)", re.IGNORECASE
)
_URI_USER = re.compile(r"(?<=://)[^/@\s]+@")


def redact(text: str) -> str:
    """Return `text` masked: user parts of URIs, `secret=...` pairs, secret variables."""
    text = _SECRET_PAIR.sub(rf"\g<1>{HIDDEN}", _URI_USER.sub(f"{HIDDEN}@", text))
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_FIELD.search(name):
            text = text.replace(value, HIDDEN)
    return text


def to_json(summary: Summary) -> str:
    """Return one line of strict JSON: no NaN, numpy scalars and paths plain, secrets masked."""
    return json.dumps(_plain(summary), ensure_ascii=False, allow_nan=False)


class RedactingFormatter(logging.Formatter):
    """Formats a log record with its secrets masked."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


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
