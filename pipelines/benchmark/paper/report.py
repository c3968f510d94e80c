"""The paper's layout, in Markdown and JSON, from whatever runs are finished."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.benchmark.paper.statistics import Gain, Spread, compare, spread
from pipelines.benchmark.paper.store import Result
from pipelines.benchmark.paper.suites import COLUMNS, ZERO_SHOT, Row, Suite
from pipelines.command.markdown import markdown_table

# Pairs in another order than published that the Markdown names.
NAMED_PAIRS = 6


@dataclass(frozen=True)
class Line:
    """One row of a table, measured."""

    row: Row
    figures: dict[str, Spread] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    against: Gain | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """One suite, measured."""

    suite: Suite
    lines: tuple[Line, ...]
    baseline: str | None
    """Label of the best baseline."""


def measure(suite: Suite, runs: Mapping[str, Sequence[Result]], notes: Mapping[str, str]) -> Table:
    """Gather a suite's rows; `notes` says why a system has no runs."""
    decisive = suite.metrics[-1]
    best = _best_baseline(suite, runs)
    lines = []
    for row in suite.rows:
        found = runs.get(row.system, ())
        against = None
        if best is not None and row.system != best.system and found:
            against = compare(found, runs[best.system], decisive)
        note = "" if found else notes.get(row.system, "not run")
        lines.append(Line(row, _figures(suite, found), _cost(found), against, note))
    return Table(suite, tuple(lines), best.label if best else None)


def _figures(suite: Suite, runs: Sequence[Result]) -> dict[str, Spread]:
    figures = {}
    for metric in suite.metrics:
        values = [run["figures"][metric] for run in runs]
        if values and None not in values:
            figures[metric] = spread([100 * value for value in values])
    return figures


def _cost(runs: Sequence[Result]) -> dict[str, float]:
    if not runs:
        return {}
    mean = {
        name: spread([run["cost"][name] for run in runs]).mean
        for name in ("products_per_second", "minutes")
    }
    counts = {name: runs[0]["cost"][name] for name in ("parameters", "trained_parameters")}
    return {**counts, **mean}


def _best_baseline(suite: Suite, runs: Mapping[str, Sequence[Result]]) -> Row | None:
    decisive = suite.metrics[-1]
    scored = []
    for row in suite.rows:
        found = _figures(suite, runs.get(row.system, ())).get(decisive)
        if not row.ours and found is not None:
            scored.append((found.mean, row))
    return max(scored, key=lambda item: item[0])[1] if scored else None


def table_markdown(table: Table) -> str:
    """Return one table: the measured figures, then cost, then what the paper published."""
    suite = table.suite
    names = [COLUMNS[metric] for metric in suite.metrics]
    gains = len(suite.metrics) > 2  # Table 2 prints a gain behind every figure
    header = ["System"]
    for name in names:
        header += [name, "Gain"] if gains else [name]
    header += [f"{names[-1]} against best baseline (95%)", "p"]
    header += ["seeds", "parameters (trained)", "products/s", "minutes a run"]
    header += [f"published, {suite.benchmark}: {name}" for name in names]
    first = table.lines[0].figures
    rows = [_cells(line, suite, first if gains else None) for line in table.lines]
    return "\n".join([f"## {suite.title}", "", markdown_table(header, rows)])


def _cells(line: Line, suite: Suite, first: Mapping[str, Spread] | None) -> list[str]:
    cells = [line.row.label + (f" ({line.note})" if line.note else "")]
    for metric in suite.metrics:
        found = line.figures.get(metric)
        cells.append(_plus_minus(found))
        if first is not None:
            start = first.get(metric)
            is_first = start is found or start is None or found is None
            cells.append("-" if is_first else f"{found.mean - start.mean:+.2f}")  # type: ignore[union-attr]
    against, cost = line.against, line.cost
    cells.append(
        "-"
        if against is None
        else f"{100 * against.gain:+.2f} ({100 * against.low:+.2f} to {100 * against.high:+.2f})"
    )
    cells.append("-" if against is None else _p_value(against.p))
    seeds = max((s.num_seeds for s in line.figures.values()), default=0)
    cells.append(str(seeds) if seeds else "-")
    cells += _cost_cells(cost)
    return cells + [
        f"{line.row.published[metric]:.2f}" if metric in line.row.published else "-"
        for metric in suite.metrics
    ]


def _cost_cells(cost: Mapping[str, float]) -> list[str]:
    if not cost:
        return ["-", "-", "-"]
    counts = f"{_millions(cost['parameters'])} ({_millions(cost['trained_parameters'])})"
    return [counts, f"{cost['products_per_second']:.0f}", f"{cost['minutes']:.1f}"]


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _millions(count: float) -> str:
    return f"{count / 1e6:.2f} M"


def _plus_minus(found: Spread | None) -> str:
    if found is None:
        return "-"
    return f"{found.mean:.2f}" + (f" +- {found.sd:.2f}" if found.num_seeds > 1 else "")


@dataclass(frozen=True)
class RangeClaim:
    """PAR's claim for one pair of systems: before and after it."""

    before: str
    after: str
    precision_gain: float
    recall_gain: float
    outside_before: float | None
    outside_after: float | None
    """Wrong values of attributes outside the product's category, per 1,000 products."""

    @property
    def holds(self) -> bool:
        """Whether precision gains more than recall, as the paper says."""
        return self.precision_gain > self.recall_gain


CLAIMED = (
    ("uls_vl", "uls_vl_par"),
    ("uls_vl_tir", "uls_dram"),
    ("uls_vl_tir_aligned", "uls_dram_aligned"),
)


def range_claims(runs: Mapping[str, Sequence[Result]], *, has_categories: bool) -> list[RangeClaim]:
    """Return PAR's claim for every pair whose runs share a seed."""
    claims = []
    for before, after in CLAIMED:
        seeds = {r["seed"] for r in runs.get(before, ())} & {r["seed"] for r in runs.get(after, ())}
        if not seeds:
            continue
        one, two = ([r for r in runs[name] if r["seed"] in seeds] for name in (before, after))
        gains = {
            metric: 100 * (_mean(two, metric) - _mean(one, metric))
            for metric in ("precision", "recall")
        }
        outside = [_outside(part) if has_categories else None for part in (one, two)]
        labels = (one[0]["label"], two[0]["label"])
        claims.append(RangeClaim(*labels, gains["precision"], gains["recall"], *outside))
    return claims


def _mean(runs: Sequence[Result], metric: str) -> float:
    return spread([run["figures"][metric] for run in runs]).mean


def _outside(runs: Sequence[Result]) -> float:
    totals = [sum(run["products"]["outside"]) for run in runs]
    return 1000 * spread(totals).mean / max(1, len(runs[0]["products"]["outside"]))


def claims_markdown(claims: Sequence[RangeClaim]) -> str:
    """Return PAR's claim as a table with plain words."""
    header = ["before", "after", "precision gain", "recall gain", "precision gains more"]
    header += ["wrong values outside the category per 1,000 products, before", "after"]
    rows = [
        [
            claim.before,
            claim.after,
            f"{claim.precision_gain:+.2f}",
            f"{claim.recall_gain:+.2f}",
            "yes" if claim.holds else "no",
            _rate(claim.outside_before),
            _rate(claim.outside_after),
        ]
        for claim in claims
    ]
    lines = ["### What PAR claims: fewer false positives, so precision gains more than recall", ""]
    lines.append(markdown_table(header, rows))
    if any(claim.outside_before is None for claim in claims):
        lines += [
            "",
            "The products have no category (name its column: --set columns.category=...).",
        ]
    return "\n".join(lines)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def sweep_points(runs: Sequence[Result]) -> list[dict[str, float]]:
    """Return Figure 8: mean and deviation of precision, recall and F1 at every S_thr."""
    sweeps = [run["sweep"] for run in runs if run.get("sweep")]
    points = []
    for rows in zip(*sweeps, strict=True):
        found = spread([100 * row["f1"] for row in rows])
        points.append(
            {
                "threshold": rows[0]["threshold"],
                "precision": spread([100 * row["precision"] for row in rows]).mean,
                "recall": spread([100 * row["recall"] for row in rows]).mean,
                "f1": found.mean,
                "f1_sd": found.sd,
            }
        )
    return points


def sweep_markdown(points: Sequence[Mapping[str, float]]) -> str:
    """Return Figure 8 as a table; the paper's best thresholds are named."""
    header = ["S_thr", "Precision", "Recall", "TAG-F1"]
    rows = [
        [f"{p['threshold']:.2f}", f"{p['precision']:.2f}", f"{p['recall']:.2f}", f"{p['f1']:.2f}"]
        for p in points
    ]
    lines = [
        "## Figure 8: TAG-F1 against the range threshold S_thr",
        "",
        markdown_table(header, rows),
    ]
    if points:
        best = max(points, key=lambda p: p["f1"])
        lines += [
            "",
            f"Best here: {best['threshold']:.2f}. Published: 0.50 on MEPAVE, 0.40 on MAE.",
        ]
    return "\n".join(lines)


def zero_shot_markdown(runs: Mapping[str, Sequence[Result]], attributes: Sequence[str]) -> str:
    """Return F1 on attributes whose values training never saw, and on the others."""
    header = ["System", "Precision", "Recall", "F1 on held-out attributes", "F1 on seen attributes"]
    rows = []
    for row in ZERO_SHOT:
        found = runs.get(row.system, ())
        cells = [row.label]
        for metric in ("precision", "recall", "tag_f1", "seen_tag_f1"):
            values = [100 * run["figures"][metric] for run in found]
            cells.append(_plus_minus(spread(values)) if values else "-")
        rows.append(cells)
    lines = ["## Zero-shot: attributes never seen in training", "", markdown_table(header, rows)]
    return "\n".join([*lines, "", f"Held out: {', '.join(attributes)}."])


def table_json(table: Table) -> dict[str, Any]:
    """Return one table with every figure unrounded."""
    return {
        "title": table.suite.title,
        "best_baseline": table.baseline,
        "rows": [
            {
                "system": line.row.system,
                "label": line.row.label,
                "figures": {name: asdict(found) for name, found in line.figures.items()},
                "cost": line.cost,
                "against_best_baseline": asdict(line.against) if line.against else None,
                f"published_{table.suite.benchmark.lower()}": line.row.published,
                "note": line.note,
            }
            for line in table.lines
        ],
    }


def table_order(table: Table) -> dict[str, Any]:
    """Return how far the measured order of the rows agrees with the published one."""
    metric = table.suite.metrics[-1]
    rows = [
        (line.row.label, line.figures[metric].mean, line.row.published[metric])
        for line in table.lines
        if metric in line.figures and metric in line.row.published
    ]
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    agreeing = [(a, b) for a, b in pairs if (a[1] - b[1]) * (a[2] - b[2]) > 0]
    against = [
        f"{max(a, b, key=lambda r: r[2])[0]} under {min(a, b, key=lambda r: r[2])[0]}"
        for a, b in pairs
        if (a, b) not in agreeing and a[2] != b[2]
    ]
    return {"pairs": len(pairs), "agreeing": len(agreeing), "against": against}


def order_markdown(table: Table) -> str:
    """Return one paragraph: which pairs of rows stand in another order than published."""
    order = table_order(table)
    if not order["pairs"]:
        return ""
    text = f"{order['agreeing']} of {order['pairs']} pairs of rows stand in the published order."
    named, more = order["against"][:NAMED_PAIRS], len(order["against"]) - NAMED_PAIRS
    if named:
        text += " Otherwise than published: " + "; ".join(named)
        text += f" and {more} more, see report.json." if more > 0 else "."
    return text
