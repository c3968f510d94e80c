"""What a run leaves for people and machines: summary, Markdown, Prometheus text, webhook."""

import json
import logging
import urllib.request
from collections.abc import Mapping
from typing import Any

from pipelines.command import redact
from pipelines.nightly.progress import as_duration
from pipelines.nightly.runs import RunFolder
from ulsdram_core.reasons import MEANINGS, Reason

_log = logging.getLogger(__name__)
_GAUGES = (
    ("rows_in", "Input rows seen by the run."),
    ("rows_extracted", "Rows decoded and modelled by the run."),
    ("rows_unchanged", "Rows that needed no work."),
    ("rows_vanished", "Products newly marked as vanished."),
    ("rows_quarantine_table", "Rows that the quarantine table stands for."),
    ("poison_rows", "Rows that killed their worker every time."),
    ("worker_failures", "Failed attempts of workers."),
    ("seconds", "Wall time of the run."),
    ("products_per_second", "Extracted rows per second of the run phase."),
    ("start_seconds", "Time until the first rows of the run phase came back."),
    ("efficiency", "Core seconds of decoding and model by those available, after the start."),
    ("bytes_scanned", "Stored bytes read to find changes."),
    ("bytes_read", "Stored bytes read to extract."),
    ("bytes_written", "Bytes written to the extractions table."),
    ("write_amplification", "Bytes written by bytes of new rows."),
    ("table_version", "Version of the extractions table after the run."),
)


def write_reports(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """report.json, report.md and metrics.prom in the run's folder."""
    folder.write("report.json", summary)
    folder.place.join("report.md").write_bytes(markdown(summary).encode())
    folder.place.join("metrics.prom").write_bytes(prometheus_text(summary).encode())


def markdown(summary: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"# Nightly run {summary['run_id']}: {summary['state']}", ""]
    if summary.get("error"):
        lines += [str(summary["error"]), ""]
    names = [name for name, _ in _GAUGES if summary.get(name) is not None]
    lines += _table(["measure", "value"], [[name, _number(summary[name])] for name in names])
    lines += ["## Status", "", *_counts("status", summary.get("by_status"))]
    lines += ["## Reasons", "", *_reasons(summary)]
    lines += ["## Time", "", *_seconds(summary.get("phase_seconds") or {})]
    lines += ["## Gate", "", *_checks(summary.get("gate") or [])]
    return "\n".join(lines) + "\n"


def prometheus_text(summary: Mapping[str, Any]) -> str:
    """Gauges in the text format, for a node exporter's folder or a push gateway."""
    lines = []
    for name, text in _GAUGES:
        value = summary.get(name)
        if value is not None:
            full = f"ulsdram_nightly_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge", f"{full} {value}"]
    full = "ulsdram_nightly_rows_by_status"
    lines += [f"# HELP {full} Extracted rows by status.", f"# TYPE {full} gauge"]
    lines += [
        f'{full}{{status="{status}"}} {count}'
        for status, count in (summary.get("by_status") or {}).items()
    ]
    full = "ulsdram_nightly_rows_by_reason"
    lines += [f"# HELP {full} Degraded and quarantined rows by reason.", f"# TYPE {full} gauge"]
    lines += [
        f'{full}{{reason="{reason}"}} {count}'
        for reason, count in (summary.get("by_reason") or {}).items()
    ]
    full = "ulsdram_nightly_success"
    lines += [f"# HELP {full} Whether the run was published.", f"# TYPE {full} gauge"]
    lines.append(f"{full} {int(summary['state'] == 'published')}")
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
