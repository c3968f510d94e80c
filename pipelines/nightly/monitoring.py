"""Telling a webhook and a push gateway how a night went; neither can hold up or fail the night."""

import base64
import json
import logging
import threading
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pipelines.command.secrets import masked
from pipelines.lake.uris import without_secrets

METRICS_JOB = "ulsdram_nightly"

_log = logging.getLogger(__name__)


def check_address(address: str) -> str:
    """Return the address of a webhook or gateway; a wrong one is not shown, it holds a secret."""
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_usable = False
    if not is_usable or any(character.isspace() or ord(character) < 32 for character in address):
        raise ValueError(
            "expected an address such as https://HOST/PATH (what was given is not shown)"
        )
    return address


def call_webhook(url: str, summary: Mapping[str, Any], *, seconds: float = 10.0) -> None:
    """POST the summary of a failed run as JSON."""
    told = masked({"text": summary.get("error", ""), "summary": summary})
    _post("webhook", url, json.dumps(told).encode(), "application/json", seconds=seconds)


def push_metrics(gateway: str, table: str, text: str, *, seconds: float = 10.0) -> None:
    """POST the metrics of one table; those that this run does not name keep their last value."""
    label = quote(without_secrets(table), safe="")
    url = f"{gateway.rstrip('/')}/metrics/job/{METRICS_JOB}/table/{label}"
    content = "text/plain; version=0.0.4"
    _post("push gateway", url, text.encode(), content, seconds=seconds)


def _post(what: str, url: str, body: bytes, content: str, *, seconds: float) -> None:
    """Send; whatever goes wrong is logged without the address. A trickling answer is left alone."""
    failures: list[object] = []

    def send() -> None:
        try:
            urllib.request.urlopen(_request(url, body, content), timeout=seconds).close()
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            failures.append(getattr(error, "code", None) or type(reason).__name__)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(2 * seconds)
    if sender.is_alive():
        failures.append("no whole answer in time")
    if failures:
        host = urlsplit(url).hostname
        _log.warning("the %s at %s could not be told: %s", what, host, failures[0])


def _request(url: str, body: bytes, content: str) -> urllib.request.Request:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    plain = parts._replace(netloc=host).geturl()
    request = urllib.request.Request(plain, data=body, headers={"Content-Type": content})
    if at:
        # not to where an answer may redirect
        code = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {code}")
    return request
