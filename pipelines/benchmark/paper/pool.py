"""Running plans one after another in this process, or several at once in processes of their own."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import ClassVar

import torch

from pipelines.benchmark.paper.data import BenchmarkData
from pipelines.benchmark.paper.plan import RunPlan
from pipelines.benchmark.paper.runner import run
from pipelines.benchmark.paper.source import Source
from pipelines.benchmark.paper.store import Result, RunStore
from ulsdram_core.process import tune_process

Say = Callable[[str], None]


class _Budget:
    """Stops new runs when an average one would not fit in the time left."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.started = time.monotonic()
        self.spent: list[float] = []

    def allows_another(self) -> bool:
        if self.seconds is None or not self.spent:
            return self.seconds is None or self.seconds > 0
        left = self.seconds - (time.monotonic() - self.started)
        return left >= sum(self.spent) / len(self.spent)


def run_all(
    plans: Sequence[RunPlan],
    data: BenchmarkData,
    store: RunStore,
    *,
    workers: int,
    seconds: float | None,
    say: Say,
) -> dict[str, str]:
    """Run plans until done or out of time; every finished run is stored at once.

    Returns why systems failed; a training that diverges fails its system, not the benchmark.
    """
    budget = _Budget(seconds)
    failures: dict[str, str] = {}
    finished = 0
    if workers == 1:
        done = _in_turn(plans, data, store, budget=budget)
    else:
        done = _at_once(plans, data, store, workers=workers, budget=budget)
    for plan, result in done:
        finished += 1
        place = f"[{finished}/{len(plans)}] {plan.system} seed {plan.seed}"
        if isinstance(result, str):
            failures[plan.system] = f"failed: {result}"
            say(f"{place}: failed: {result}")
        else:
            budget.spent.append(60 * result["cost"]["minutes"] / workers)
            say(f"{place}: {_line(result)}")
    if finished < len(plans):
        say(f"out of time: {len(plans) - finished} runs are left; run the same command to go on")
    return failures


def _line(result: Result) -> str:
    names = {"tag_f1": "TAG-F1", "cls_f1": "CLS-F1", "accuracy": "accuracy"}
    figures = result["figures"]
    shown = [
        f"{label} {100 * figures[name]:.2f}"
        for name, label in names.items()
        if figures.get(name) is not None
    ]
    shown.append(f"{result['cost']['minutes']:.2f} minutes")
    return ", ".join(shown)


Finished = Iterator[tuple[RunPlan, Result | str]]


def _in_turn(
    plans: Sequence[RunPlan],
    data: BenchmarkData,
    store: RunStore,
    *,
    budget: _Budget,
) -> Finished:
    for plan in plans:
        if not budget.allows_another():
            return
        yield plan, _run(plan, data, store)


def _run(plan: RunPlan, data: BenchmarkData, store: RunStore) -> Result | str:
    try:
        result = run(plan, data)
    except FloatingPointError as error:  # the gradient is no number: this system diverged
        return str(error)
    store.put(result)
    return result


def _at_once(
    plans: Sequence[RunPlan],
    data: BenchmarkData,
    store: RunStore,
    *,
    workers: int,
    budget: _Budget,
) -> Finished:
    for plan in plans:  # so that no two processes decode the same pictures
        for split in ("train", "test"):
            data.store(plan, split)
    threads = max(1, torch.get_num_threads() // workers)
    waiting = list(plans)
    running: dict[Future[Result | str], RunPlan] = {}
    context = multiprocessing.get_context("spawn")
    start = (data.source, data.cache, threads)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_Process.start, initargs=start
    ) as pool:
        while waiting or running:
            while waiting and len(running) < workers and budget.allows_another():
                plan = waiting.pop(0)
                job = pool.submit(_Process.run, plan, store.folder)
                running[job] = plan
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for job in done:
                yield running.pop(job), job.result()


class _Process:
    """What a process of the pool keeps between its runs."""

    data: ClassVar[BenchmarkData]

    @classmethod
    def start(cls, source: Source, cache: Path, threads: int) -> None:
        """Open the data once."""
        tune_process(threads)
        cls.data = BenchmarkData(source, cache)

    @classmethod
    def run(cls, plan: RunPlan, runs: Path) -> Result | str:
        """Run one plan."""
        return _run(plan, cls.data, RunStore(runs))
