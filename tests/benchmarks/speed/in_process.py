"""The extractor against the released pipeline, in one process, at equal values."""

from collections.abc import Callable

from speed.agreement import agreement
from speed.released import ReleasedPipeline
from speed.report import Section
from speed.timing import interleaved, median, ratio
from speed.workbench import Subject, Workbench
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def run(bench: Workbench) -> Section:
    """Both models, both systems."""
    section = Section(
        "In process, against the released pipeline on the same weights",
        ("model", "system", "numbers", "products/s", "times", "GFLOP/product", "limit/s", "share"),
    )
    for key, subject in (("large", bench.large), ("small", bench.small)):
        section.figures[key] = _compare(section, subject, bench)
        if bench.is_tiny:
            break
    section.figures["extract_vs_released"] = section.figures["large"]["times"]
    section.notes.append(
        "limit: the peak of a large matrix product or convolution here in the numbers that the "
        "system computes with, by the FLOPs of one product"
    )
    for precision in dict.fromkeys(("fp32", bench.large.extractor.precision)):
        peak = bench.peak(precision)
        section.notes.append(
            f"peak in {precision}: {peak.best:.0f} GFLOP/s (matmul {peak.matmul:.0f}, "
            f"convolution {peak.convolution:.0f})"
        )
    return section


def _compare(section: Section, subject: Subject, bench: Workbench) -> dict[str, object]:
    released = ReleasedPipeline(subject.parts)
    products = subject.products
    calls = {
        "released": lambda: released.extract(products),
        "ours": lambda: subject.extractor.extract(products),
    }
    times = interleaved(calls, bench.sizes.rounds)
    times_faster = ratio(times, "released", "ours")
    figures: dict[str, object] = {"times": times_faster, "rounds": times}
    work = {name: count_flops(call) / len(products) for name, call in calls.items()}
    for name, call_times in times.items():
        rate = len(products) / median(call_times)
        precision = subject.extractor.precision if name == "ours" else "fp32"
        limit = bench.peak(precision).best * 1e9 / work[name]
        times_cell = times_faster if name == "ours" else 1.0
        row = (rate, times_cell, work[name] / 1e9, limit, rate / limit)
        section.rows.append((subject.name, name, precision, *row))
        figures[name] = {"products_per_second": rate, "gflop": work[name] / 1e9, "limit": limit}
    figures["limit_times_by_flops"] = work["released"] / work["ours"]
    found = agreement(
        products,
        subject.extractor.extract(products),
        released.extract_with_confidence(products),
    )
    figures["equal_spans"], figures["confidence_difference"] = found.equal, found.confidence
    section.notes.append(
        f"{subject.name}: {found.note()}; {len(products)} products, "
        f"{figures['limit_times_by_flops']:.2f} x fewer FLOPs"
    )
    return figures


def count_flops(call: Callable[[], object]) -> float:
    """Operations of one call; a multiply-add counts two.

    torch's counter does not see inside nn.LSTM on a CPU: its products are added here.
    """
    recurrent = 0

    def count_lstm(module: nn.Module, args: tuple, _: object) -> None:
        nonlocal recurrent
        if isinstance(module, nn.LSTM):
            places = args[0].shape[0] * args[0].shape[1]
            recurrent += 2 * places * (module.weight_ih_l0.numel() + module.weight_hh_l0.numel())

    hook = nn.modules.module.register_module_forward_hook(count_lstm)
    with FlopCounterMode(display=False) as counter:
        call()
    hook.remove()
    return counter.get_total_flops() + recurrent
