"""What a run leaves for people and machines: summary, Markdown, metrics."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.checks import NOT_JUDGED, PASSED
from pipelines.command.markdown import markdown_table
from pipelines.command.secrets import masked
from pipelines.lake.times import as_duration
from pipelines.nightly.monitoring import METRICS_JOB
from pipelines.nightly.runs import RunFolder
from ulsdram_core.reasons import MEANINGS, Reason

GAUGES = (
    ("rows_in", "Input rows seen by the run."),
    ("rows_extracted", "Rows decoded and modelled by the run."),
    ("rows_unchanged", "Rows that needed no work."),
    ("rows_vanished", "Products newly marked as vanished."),
    ("rows_quarantine_table", "Rows that the quarantine table stands for."),
    ("broken_pictures", "Pictures that could not be used, by rows that name them."),
    ("poison_rows", "Rows that killed their worker every time."),
    ("worker_failures", "Failed attempts of workers."),
    ("seconds", "Wall time of the run."),
    ("products_per_second", "Extracted rows per second of the run phase."),
    ("start_seconds", "Time until the first rows of the run phase came back."),
    ("efficiency", "Core seconds of decoding and model by those available, after the start."),
    ("bytes_scanned", "Stored bytes read to find changes."),
    ("bytes_read", "Stored bytes read to extract."),
    ("bytes_written", "Bytes written to the extractions table."),
    ("write_amplification", "Rows written by rows that changed or vanished."),
    ("table_version", "Version of the extractions table after the run."),
)
_COUNTS = (
    ("rows_by_status", "status", "Extracted rows by status."),
    ("rows_by_reason", "reason", "Degraded and quarantined rows by reason."),
)


def write_reports(folder: RunFolder, summary: Mapping[str, Any], *, metrics: str) -> None:
    """report.json, report.md and metrics.prom in the run's folder."""
    summary = masked(summary)
    folder.write("report.json", summary)
    folder.place.join("report.md").write_bytes(markdown(summary).encode())
    folder.place.join("metrics.prom").write_bytes(metrics.encode())


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the report for people."""
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
            str(check["verdict"]),
            str(check["note"]),
        ]
        for check in checks
    ]
    return _table(["check", "found", "limit", "verdict", "note"], rows)


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [markdown_table(header, rows) if rows else "none", ""]


def _number(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def prometheus_text(summary: Mapping[str, Any], *, finished_at: float) -> str:
    """Return gauges in the text format, for a node exporter's folder or a push gateway.

    A run that did not publish says nothing of `last_success_timestamp_seconds`: a push gateway
    keeps the value that an earlier run left there.
    """
    lines: list[str] = []
    for name, text in GAUGES:
        if summary.get(name) is not None:
            lines += _gauge(name, text, [("", summary[name])])
    for name, label, text in _COUNTS:
        counts = summary.get(name.removeprefix("rows_")) or {}
        lines += _gauge(name, text, [(_label(label, key), count) for key, count in counts.items()])
    lines += _gate(summary.get("gate") or [])
    lines += _gauge("finished_timestamp_seconds", "When the run ended.", [("", finished_at)])
    is_published = summary["state"] == "published"
    if is_published:
        text = "When a run was last published."
        lines += _gauge("last_success_timestamp_seconds", text, [("", finished_at)])
    lines += _gauge("success", "Whether the run was published.", [("", int(is_published))])
    return "\n".join(lines) + "\n"


def _gate(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what the gate found, its limits and its verdicts, by check."""
    found, limits, judged, passed = [], [], [], []
    for check in checks:
        label = _label("check", check["name"])
        found.append((label, check["found"]))
        limits.append((label, check["limit"]))
        judged.append((label, int(check["verdict"] != NOT_JUDGED)))
        if check["verdict"] != NOT_JUDGED:
            passed.append((label, int(check["verdict"] == PASSED)))
    return [
        *_gauge("gate_found", "What a check of the gate found.", found),
        *_gauge("gate_limit", "The most that a check of the gate lets pass.", limits),
        *_gauge("gate_judged", "Whether there was enough to judge a check of the gate.", judged),
        *_gauge("gate_passed", "Whether a check of the gate passed.", passed),
    ]


def _gauge(name: str, text: str, samples: Iterable[tuple[str, object]]) -> list[str]:
    full = f"{METRICS_JOB}_{name}"
    lines = [f"{full}{label} {value}" for label, value in samples]
    return [f"# HELP {full} {text}", f"# TYPE {full} gauge", *lines] if lines else []


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{{name}="{escaped}"}}'
