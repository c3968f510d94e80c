#!/usr/bin/env python3
"""The CRF against pytorch-crf: decode and loss, medians and ratios of interleaved runs.

python tests/benchmarks/bench_crf.py [--threads 1 2] [--tags 3 51] [--batch 1000] [--length 128]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torchcrf

from ulsdram_core.method.crf import CRF, TagSpans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads")
    parser.add_argument("--tags", type=int, nargs="+", default=[3], help="tag set sizes")
    parser.add_argument("--batch", type=int, default=1000, help="sequences")
    parser.add_argument("--length", type=int, default=128, help="longest sequence, positions")
    parser.add_argument("--repeats", type=int, default=7, help="runs per median")
    options = parser.parse_args()
    results = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for num_tags in options.tags:
            calls = build_calls(num_tags, options.batch, options.length)
            medians = interleaved_medians(calls, options.repeats)
            results.append(summarise(medians) | {"threads": threads, "num_tags": num_tags})
            print_result(results[-1])
    shape = {"batch": options.batch, "length": options.length, "repeats": options.repeats}
    print(json.dumps(shape | {"results": results}))


def build_calls(num_tags: int, batch: int, length: int) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    theirs = torchcrf.CRF(num_tags, batch_first=True)
    ours = CRF(num_tags, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    emissions = torch.randn(batch, length, num_tags, generator=generator)
    tags = torch.randint(num_tags, (batch, length), generator=generator)
    lengths = torch.randint(length // 4, length + 1, (batch, 1), generator=generator)
    mask = torch.arange(length) < lengths
    learned = emissions.clone().requires_grad_()
    starts = torch.zeros(batch, dtype=torch.int64)
    begin, inside = min(1, num_tags - 1), min(2, num_tags - 1)
    spans = TagSpans(torch.arange(batch), starts, starts + 2, starts + begin, starts + inside)

    def loss(crf: torchcrf.CRF) -> Callable[[], object]:
        def step() -> None:
            learned.grad = None
            crf.zero_grad()
            (-crf(learned, tags, mask, reduction="mean")).backward()

        return step

    def decode(crf: torchcrf.CRF) -> Callable[[], object]:
        return torch.no_grad()(lambda: crf.decode(emissions, mask))

    return {
        "pytorch-crf decode": decode(theirs),
        "decode": decode(ours),
        "pytorch-crf loss": loss(theirs),
        "loss": loss(ours),
        "viterbi": lambda: ours.viterbi(emissions, mask),
        "span_log_prob": lambda: ours.span_log_prob(emissions, spans, mask),
    }


def interleaved_medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds; the calls take turns, so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if repeat:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def summarise(medians: dict[str, float]) -> dict:
    ratios = {name: medians[f"pytorch-crf {name}"] / medians[name] for name in ("decode", "loss")}
    return {
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "times_faster": {name: round(value, 2) for name, value in ratios.items()},
    }


def print_result(result: dict) -> None:
    print(f"{result['num_tags']} tags, {result['threads']} threads")
    for name, value in result["milliseconds"].items():
        faster = result["times_faster"].get(name)
        note = f"   {faster:.1f} x faster" if faster else ""
        print(f"  {name:<20}{value:>10.2f} ms{note}")


if __name__ == "__main__":
    main()
