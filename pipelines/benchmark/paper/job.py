"""The benchmark command: which runs are needed, running them, writing the report."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.benchmark.paper import report
from pipelines.benchmark.paper.data import BenchmarkData
from pipelines.benchmark.paper.plan import RunPlan, plan_run
from pipelines.benchmark.paper.plot import BarRow, bar_chart, line_chart
from pipelines.benchmark.paper.pool import Say, run_all
from pipelines.benchmark.paper.settings import BenchmarkConfig
from pipelines.benchmark.paper.source import Source
from pipelines.benchmark.paper.spacy_ner import is_installed
from pipelines.benchmark.paper.store import Result, RunStore
from pipelines.benchmark.paper.suites import (
    FIG8,
    TABLE2,
    ZERO_SHOT,
    Suite,
    chosen_suites,
    systems_of,
)
from pipelines.lake.kinds import BENCHMARK, check_apart, check_kind, claim
from pipelines.lake.storage import Storage

Runs = dict[str, list[Result]]
ZERO = "zero-shot:"


@dataclass(frozen=True)
class BenchmarkRequest:
    """What a user asked for."""

    suite: str
    source: Source
    out: Path
    seeds: int = 1
    workers: int = 1
    budget_minutes: float | None = None
    held_out: tuple[str, ...] = ()

    @property
    def config(self) -> BenchmarkConfig:
        """The benchmark's recipe."""
        return self.source.config

    def check(self) -> None:
        """Refuse what cannot be run, before anything starts."""
        for name, value in (("--seeds", self.seeds), ("--workers", self.workers)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        check_kind(Storage.of(self.out), BENCHMARK)
        if not self.source.is_demo:
            check_apart(Storage.of(self.source.data), Storage.of(self.out), read="--data")
        chosen_suites(self.suite)
        self.source.check()


def list_rows(suite: str, config: BenchmarkConfig) -> list[str]:
    """Return one line per row of the chosen suites: table, system, label, parts."""
    lines = []
    for chosen in chosen_suites(suite):
        for row in chosen.rows:
            parts = _parts_of(config, row.system)
            lines.append(f"{chosen.name:8s} {row.system:22s} {row.label:45s} {parts}")
    return lines


def _parts_of(config: BenchmarkConfig, system: str) -> str:
    plan = plan_run(config, system, seed=0)
    if plan.kind in ("ranker", "spacy"):
        return {"ranker": "value ranker, no spans", "spacy": "optional extra `peers`"}[plan.kind]
    model = plan.extractor.model
    named = [f"text={model.text_encoder.name}"]
    if model.image_encoder is not None:
        named.append(f"pictures={model.image_encoder.architecture}")
    kinds = {
        "fusion": model.fusion.kind,
        "reader": model.reader.kind,
        "head": model.head,
        "range": model.policy.kind,
    }
    named += [f"{part}={kind}" for part, kind in kinds.items() if kind != "none"]
    named.append(f"tagger={model.tagger.kind}")
    return " ".join([*named, *([] if model.unified else ["encoders fixed"])])


def plans_of(request: BenchmarkRequest) -> list[RunPlan]:
    """Return every run that the suites need, seed by seed, so that a cut leaves whole tables."""
    systems = systems_of(chosen_suites(request.suite))
    plans = []
    for seed in range(request.seeds):
        plans += [plan_run(request.config, name, seed=seed) for name in systems]
        if request.held_out:
            plans += [
                plan_run(request.config, row.system, seed=seed, held_out=request.held_out)
                for row in ZERO_SHOT
            ]
    if not is_installed():
        plans = [plan for plan in plans if plan.kind != "spacy"]
    return plans


def run_benchmark(request: BenchmarkRequest, say: Say) -> dict[str, Any]:
    """Run what is not yet finished, write the report, return the summary."""
    request.check()
    started = time.monotonic()
    claim(Storage.of(request.out), BENCHMARK)
    data = BenchmarkData(request.source, request.out / "cache")
    _check_held_out(request, data)
    store = RunStore(request.out / "runs")
    plans = plans_of(request)
    todo = [plan for plan in plans if store.find(plan.fingerprint(data.key)) is None]
    say(
        f"{len(plans)} runs on {len(data.train)} training and {len(data.test)} test products: "
        f"{len(plans) - len(todo)} finished before, {len(todo)} to do"
    )
    failures = run_all(
        todo,
        data,
        store,
        workers=request.workers,
        seconds=None if request.budget_minutes is None else 60 * request.budget_minutes,
        say=say,
    )
    runs = gather(plans, data, store)
    written = write_report(request, data, runs, failures)
    left = [p for p in plans if store.find(p.fingerprint(data.key)) is None]
    return {
        "report": str(written),
        "runs": len(plans),
        "finished_before": len(plans) - len(todo),
        "finished": len(plans) - len(left),
        "left": [f"{plan.system} seed {plan.seed}" for plan in left],
        "failed": failures,
        "benchmark_minutes": round((time.monotonic() - started) / 60, 2),
    }


def _check_held_out(request: BenchmarkRequest, data: BenchmarkData) -> None:
    known = {name for product in data.test for name in product.gold_attributes()}
    if missing := sorted(set(request.held_out) - known):
        raise ValueError(
            f"--attributes names {missing[0]!r}, expected attributes of the test products: "
            f"{', '.join(sorted(known))}"
        )
    if request.held_out:
        data.labels(request.held_out)  # something must be left to learn


def gather(plans: Sequence[RunPlan], data: BenchmarkData, store: RunStore) -> Runs:
    """Return the finished runs by system; zero-shot runs under names of their own."""
    runs: Runs = {}
    for plan in plans:
        found = store.find(plan.fingerprint(data.key))
        if found is not None:
            name = f"{ZERO}{plan.system}" if plan.held_out else plan.system
            # Two systems of the recipe may be the same run; each keeps its own name.
            runs.setdefault(name, []).append({**found, "system": plan.system, "label": plan.label})
    return runs


def write_report(
    request: BenchmarkRequest, data: BenchmarkData, runs: Runs, failures: dict[str, str]
) -> Path:
    """Write report.md, report.json and one PNG per table; returns the Markdown's path."""
    notes = dict(failures)
    if not is_installed():
        notes["spacy"] = "needs the optional extra: pip install 'ulsdram[peers]'"
    texts = [_heading(request, data)]
    document: dict[str, Any] = {"data": request.source.data, "tables": {}}
    for suite in chosen_suites(request.suite):
        for text in _suite_texts(suite, runs, notes, data, document):
            texts.append(text)
        _write_chart(request.out / f"{suite.name}.png", suite, runs, notes)
    if request.held_out:
        held_out = {name.removeprefix(ZERO): found for name, found in runs.items() if ZERO in name}
        texts.append(report.zero_shot_markdown(held_out, request.held_out))
        document["zero_shot"] = {
            name: [run["figures"] for run in found] for name, found in held_out.items()
        }
    path = request.out / "report.md"
    Storage.of(path).write_bytes("\n\n".join(texts).encode() + b"\n")
    text = json.dumps(document, indent=2) + "\n"
    Storage.of(request.out / "report.json").write_bytes(text.encode())
    return path


def _suite_texts(
    suite: Suite,
    runs: Runs,
    notes: dict[str, str],
    data: BenchmarkData,
    document: dict[str, Any],
) -> Iterator[str]:
    if suite is FIG8:
        points = report.sweep_points(runs.get(suite.rows[0].system, []))
        document["tables"][suite.name] = {"title": suite.title, "points": points}
        yield report.sweep_markdown(points)
        return
    table = report.measure(suite, runs, notes)
    document["tables"][suite.name] = {
        **report.table_json(table),
        "order": report.table_order(table),
    }
    yield report.table_markdown(table)
    if table.baseline is not None:
        yield f"Best baseline: {table.baseline}. {report.order_markdown(table)}".strip()
    if suite is TABLE2:
        claims = report.range_claims(runs, has_categories=bool(data.category_attributes))
        document["tables"][suite.name]["claims"] = [
            {**vars(claim), "holds": claim.holds} for claim in claims
        ]
        if claims:
            yield report.claims_markdown(claims)


def _heading(request: BenchmarkRequest, data: BenchmarkData) -> str:
    settings = request.config.settings
    lines = [
        "# Benchmark",
        "",
        f"Data: {'the demo catalogue' if request.source.is_demo else request.source.data}, "
        f"{len(data.train)} training and {len(data.test)} test products, "
        f"{len(data.labels())} attributes, pictures of {settings.picture_size} px. "
        f"Text encoder {settings.text_encoder.name}, second {settings.second_text_encoder.name}, "
        f"image encoder {settings.image_encoder.architecture} "
        f"(weights: {settings.image_encoder.weights}). {settings.epochs} epochs where a text "
        "encoder is fine-tuned; see jobs/recipes/benchmark.toml.",
        "",
        "Figures are percent, mean +- sample standard deviation over seeds. The columns named "
        "*published* are the paper's own, on other data: they are there to compare orders, not "
        "values. Intervals and p come from a paired bootstrap over test products. products/s "
        "is extraction in one process from decoded pictures; systems with fixed encoders read "
        "picture features that were computed once.",
    ]
    if not settings.text_encoder.is_pretrained:
        lines += [
            "",
            "No pretrained text encoder was given: rows with *fixed* encoders keep random weights "
            "fixed, and say nothing about fixed pretrained ones.",
        ]
    return "\n".join(lines)


def _write_chart(path: Path, suite: Suite, runs: Runs, notes: dict[str, str]) -> None:
    if suite is FIG8:
        points = report.sweep_points(runs.get(suite.rows[0].system, []))
        pairs = [(point["threshold"], point["f1"]) for point in points]
        Storage.of(path).write_bytes(line_chart(suite.title, pairs, x_label="threshold S_thr"))
        return
    metric = suite.metrics[-1]
    lines = report.measure(suite, runs, notes).lines
    bars = [
        BarRow(line.row.label, line.figures[metric].mean, line.figures[metric].sd, line.row.ours)
        for line in lines
        if metric in line.figures
    ]
    Storage.of(path).write_bytes(bar_chart(suite.title, bars))
