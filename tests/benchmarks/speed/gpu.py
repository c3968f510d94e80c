"""The same model on a GPU: products a second, share of the peak, where the time goes.

Nothing of it is known where there is no GPU: then it says so and gives no number.
"""

import torch
from speed.agreement import agreement
from speed.in_process import count_flops
from speed.report import Section
from speed.timing import interleaved, median
from speed.workbench import Subject, Workbench
from torch.profiler import ProfilerActivity, profile

from ulsdram_core.extractor import DecodedProduct, Extractor

REPEATS = 16  # a GPU needs more products at once than a CPU
KERNELS = 12


def run(bench: Workbench) -> Section:
    """Both models in the precision that the extractor chooses, and in fp32."""
    section = Section(
        "GPU", ("model", "precision", "products/s", "TFLOP/s", "peak TFLOP/s", "share")
    )
    if not torch.cuda.is_available():
        section.notes.append("no GPU here: not measured")
        return section
    section.figures["device"] = torch.cuda.get_device_name()
    for subject in (bench.large, bench.small):
        for precision in ("auto", "fp32"):
            _measure(section, subject, bench, precision)
    section.notes.append(
        "pictures decoded beforehand; peak: a matrix product of 8192 in the same precision, here"
    )
    return section


def _measure(section: Section, subject: Subject, bench: Workbench, precision: str) -> None:
    # A copy, since parts move to the extractor's device.
    parts = subject.parts
    expected = [extraction.values for extraction in subject.extractor.extract(subject.products)]
    extractor = Extractor(
        parts, device="cuda", precision=precision, max_pieces=64 * 1024, max_windows=1024
    )
    products = many(subject.decoded)

    def extract() -> None:
        extractor.extract_decoded(products)
        torch.cuda.synchronize()

    seconds = median(interleaved({"gpu": extract}, bench.sizes.rounds, warmup=2)["gpu"])
    found = agreement(subject.products, extractor.extract(subject.products), expected)
    work = count_flops(extract)
    peak = gpu_peak(torch.bfloat16 if extractor.precision == "bf16" else torch.float32)
    achieved = work / seconds / 1e12
    rate = len(products) / seconds
    section.rows.append((subject.name, extractor.precision, rate, achieved, peak, achieved / peak))
    name = f"{subject.name}, {extractor.precision}"
    section.figures[name] = {
        "products_per_second": rate,
        "tflops": achieved,
        "peak_tflops": peak,
        "equal_spans": found.equal,
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9,
        "kernels": kernels(extract),
    }
    section.notes.append(f"{name}: against fp32 on the CPU {found.note()}")
    for kernel in section.figures[name]["kernels"]:
        section.notes.append(f"{name}: {kernel['share']:.1%} {kernel['name']}")
    parts.model.to("cpu")


def many(decoded: list[DecodedProduct]) -> list[DecodedProduct]:
    """The products several times over, with pictures of their own so that each is encoded."""
    return [
        DecodedProduct(
            f"{product.product_id}-{copy}", product.texts, tuple(p.copy() for p in product.pictures)
        )
        for copy in range(REPEATS)
        for product in decoded
    ]


def gpu_peak(dtype: torch.dtype, size: int = 8192) -> float:
    """TFLOP/s of a large matrix product."""
    a = torch.randn(size, size, device="cuda", dtype=dtype)

    def multiply() -> None:
        for _ in range(4):
            a @ a
        torch.cuda.synchronize()

    seconds = min(interleaved({"matmul": multiply}, 5, warmup=2)["matmul"]) / 4
    return 2 * size**3 / seconds / 1e12


def kernels(call) -> list[dict[str, object]]:
    """The kernels that take most of the device's time; the rest of the wall time is the host's."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
    rows = [row for row in recorded.key_averages() if row.self_device_time_total > 0]
    total = sum(row.self_device_time_total for row in rows) or 1.0
    rows.sort(key=lambda row: -row.self_device_time_total)
    return [
        {"name": row.key[:80], "share": row.self_device_time_total / total, "calls": row.count}
        for row in rows[:KERNELS]
    ]
