"""What a run leaves for people and machines: summary, Markdown, metrics, webhook."""

import json
import logging
import urllib.request
from collections.abc import Mapping
from typing import Any

from pipelines.command.run import redact
from pipelines.nightly.metrics import GAUGES
from pipelines.nightly.progress import as_duration
from pipelines.nightly.runs import RunFolder
from ulsdram_core.reasons import MEANINGS, Reason

_log = logging.getLogger(__name__)


def write_reports(folder: RunFolder, summary: Mapping[str, Any], *, metrics: str) -> None:
    """report.json, report.md and metrics.prom in the run's folder."""
    folder.write("report.json", summary)
    folder.place.join("report.md").write_bytes(markdown(summary).encode())
    folder.place.join("metrics.prom").write_bytes(metrics.encode())


def markdown(summary: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"# Nightly run {summary['run_id']}: {summary['state']}", ""]
    if summary.get("error"):
        lines += [str(summary["error"]), ""]
    names = [name for name, _ in GAUGES if summary.get(name) is not None]
    lines += _table(["measure", "value"], [[name, _number(summary[name])] for name in names])
    lines += ["## Status", "", *_counts("status", summary.get("by_status"))]
    lines += ["## Reasons", "", *_reasons(summary)]
    lines += ["## Time", "", *_seconds(summary.get("phase_seconds") or {})]
    lines += ["## Gate", "", *_checks(summary.get("gate") or [])]
    return "\n".join(lines) + "\n"


def call_webhook(url: str, summary: Mapping[str, Any], *, seconds: float = 10.0) -> None:
    """POST the summary of a failed run as JSON; a webhook that fails is only logged."""
    body = json.dumps({"text": summary.get("error", ""), "summary": dict(summary)}, default=str)
    request = urllib.request.Request(
        url, data=redact(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(request, timeout=seconds).close()
    except OSError as error:
        _log.warning("the webhook could not be called: %s", error)


def _reasons(summary: Mapping[str, Any]) -> list[str]:
    counts = summary.get("by_reason") or {}
    rows = [[name, f"{count:,}", MEANINGS[Reason(name)]] for name, count in counts.items()]
    return _table(["reason", "rows", "meaning"], rows)


def _counts(name: str, counts: Mapping[str, int] | None) -> list[str]:
    return _table([name, "rows"], [[key, f"{count:,}"] for key, count in (counts or {}).items()])


def _seconds(phases: Mapping[str, float]) -> list[str]:
    return _table(["phase", "time"], [[name, as_duration(s)] for name, s in phases.items()])


def _checks(checks: list[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            str(check["name"]),
            _number(check["found"]),
            _number(check["limit"]),
            "passed" if check["is_passed"] else "FAILED",
            str(check["note"]),
        ]
        for check in checks
    ]
    return _table(["check", "found", "limit", "verdict", "note"], rows)


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return ["none", ""]
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def _number(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
