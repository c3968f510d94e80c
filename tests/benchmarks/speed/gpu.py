"""The same model on a GPU: products a second, share of the peak, where the time goes.

Nothing of it is known where there is no GPU: then it says so and gives no number.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from speed.agreement import agreement
from speed.in_process import count_flops
from speed.report import Section
from speed.timing import interleaved, median
from speed.workbench import Subject, Workbench
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ulsdram_core.extractor import Extractor
from ulsdram_core.parts import ModelParts
from ulsdram_core.precision import PrecisionChoice
from ulsdram_core.schema import DecodedProduct, Value

KERNELS = 12


@dataclass(frozen=True)
class Load:
    """Where and how much; a GPU needs more products at once than a CPU."""

    device: str = "cuda"
    repeats: int = 16
    peak_size: int = 8192
    """Side of the matrices whose product gives the peak."""
    rounds: int = 5


@dataclass(frozen=True)
class Numbers:
    """A number format. torch itself lets convolutions use TF32 and matrix products not, so a
    share of "the fp32 peak" means something only with both set alike."""

    name: str
    precision: PrecisionChoice
    tf32: bool = False


FORMATS = (Numbers("auto", "auto"), Numbers("fp32", "fp32"), Numbers("tf32", "fp32", tf32=True))


def run(bench: Workbench) -> Section:
    """Both models in the precision that the extractor chooses, in fp32 and in TF32."""
    section = new_section()
    if not torch.cuda.is_available():
        section.notes.append("no GPU here: not measured")
        return section
    section.figures["device"] = torch.cuda.get_device_name()
    for subject in (bench.large, bench.small):
        measure(section, subject, FORMATS, Load(rounds=bench.sizes.rounds))
    section.notes += [
        "pictures decoded beforehand; peak: a large matrix product in the same number format, here",
        "busy: time of the device's kernels by the wall time; else the device waits for the host",
        "fp32: TF32 neither in convolutions nor in products; tf32: in both (torch alone: only in "
        "convolutions)",
    ]
    return section


def new_section() -> Section:
    """The table without rows."""
    columns = ("model", "numbers", "products/s", "TFLOP/s", "peak TFLOP/s", "share", "busy")
    return Section("GPU", columns)


def measure(section: Section, subject: Subject, formats: Sequence[Numbers], load: Load) -> None:
    """Add a row for each number format; the reference is fp32 on the CPU."""
    # Copies, since an extractor moves its parts to its device.
    reference = Extractor(own_model(subject.parts), device="cpu", precision="fp32")
    expected = [extraction.values for extraction in reference.extract_decoded(subject.decoded)]
    products = many(subject.decoded, load.repeats)
    for numbers in formats:
        with tf32(numbers.tf32):
            extractor = Extractor(
                own_model(subject.parts),
                device=load.device,
                precision=numbers.precision,
                max_pieces=64 * 1024,
                max_windows=1024,
            )
            name = f"{subject.name}, {_shown(numbers, extractor)}"
            figures = _figures(extractor, products, load)
        row = ("products_per_second", "tflops", "peak_tflops", "share", "busy")
        section.rows.append(
            (subject.name, _shown(numbers, extractor), *(figures[key] for key in row))
        )
        section.figures[name] = figures
        _compare(section, name, extractor, subject, expected)


def own_model(parts: ModelParts) -> ModelParts:
    """The parts with a copy of the model."""
    return replace(parts, model=copy.deepcopy(parts.model))


def _shown(numbers: Numbers, extractor: Extractor) -> str:
    return "tf32" if numbers.tf32 else extractor.precision


def _figures(extractor: Extractor, products: list[DecodedProduct], load: Load) -> dict:
    device = extractor.device

    def extract() -> None:
        extractor.extract_decoded(products)
        synchronize(device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = median(interleaved({"gpu": extract}, load.rounds, warmup=2)["gpu"])
    tflops = count_flops(extract) / seconds / 1e12
    dtype = torch.bfloat16 if extractor.precision == "bf16" else torch.float32
    peak = device_peak(device, dtype, load.peak_size)
    rows, device_seconds = kernels(extract)
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return {
        "products_per_second": len(products) / seconds,
        "tflops": tflops,
        "peak_tflops": peak,
        "share": tflops / peak,
        "busy": device_seconds / seconds if rows else None,
        "device_seconds": device_seconds,
        "wall_seconds": seconds,
        "memory_gb": memory,
        "kernels": rows,
    }


def _compare(
    section: Section,
    name: str,
    extractor: Extractor,
    subject: Subject,
    expected: Sequence[Sequence[Value]],
) -> None:
    """How far the answers are from the reference, and which kernels gave them."""
    found = agreement(subject.products, extractor.extract_decoded(subject.decoded), expected)
    figures = section.figures[name]
    figures["equal_spans"], figures["confidence_difference"] = found.equal, found.confidence
    section.notes.append(f"{name}: against fp32 on the CPU {found.note()}")
    for kernel in figures["kernels"]:
        section.notes.append(f"{name}: {kernel['share']:.1%} {kernel['name']}")


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """The same setting for matrix products and convolutions."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def synchronize(device: torch.device) -> None:
    """Wait for a device that works by itself."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def many(decoded: Sequence[DecodedProduct], repeats: int) -> list[DecodedProduct]:
    """The products several times over, with pictures of their own so that each is encoded."""
    return [
        DecodedProduct(
            f"{product.product_id}-{number}",
            product.texts,
            tuple(picture.copy() for picture in product.pictures),
        )
        for number in range(repeats)
        for product in decoded
    ]


def device_peak(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """TFLOP/s of a large matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        for _ in range(4):
            a @ a
        synchronize(device)

    seconds = min(interleaved({"matmul": multiply}, 5, warmup=2)["matmul"]) / 4
    return 2 * size**3 / seconds / 1e12


def kernels(call: Callable[[], object]) -> tuple[list[dict[str, object]], float]:
    """The kernels that take most of the device's time, and the seconds of all of them."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
    # Operations of the host are listed with the time of their kernels, which would count twice.
    rows = [row for row in recorded.key_averages() if row.device_type == DeviceType.CUDA]
    rows = [row for row in rows if row.self_device_time_total > 0 and not row.is_user_annotation]
    rows.sort(key=lambda row: -row.self_device_time_total)
    total = sum(row.self_device_time_total for row in rows)
    top = [
        {"name": row.key[:80], "share": row.self_device_time_total / total, "calls": row.count}
        for row in rows[:KERNELS]
    ]
    return top, total / 1e6
