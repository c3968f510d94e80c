"""Medians of calls that take turns, and the most that this machine can compute."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ulsdram_core.precision import Precision, choose_precision

COPY_BYTES = 1 << 27
Times = Mapping[str, Sequence[float]]


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, round by round; calls take turns, so that a busy machine slows all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= warmup:
                times[name].append(time.perf_counter() - began)
    return times


def median(times: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(times)


def ratio(times: Times, slow: str, fast: str) -> float:
    """How often `fast` is done while `slow` is done once: the median over rounds."""
    pairs = zip(times[slow], times[fast], strict=True)
    return statistics.median([a / b for a, b in pairs])


@dataclass(frozen=True)
class Peak:
    """The most that large operations reach here, in GFLOP/s; a multiply-add counts two."""

    matmul: float
    convolution: float

    @property
    def best(self) -> float:
        """What no model exceeds."""
        return max(self.matmul, self.convolution)


@torch.inference_mode()
def measure_peak(precision: Precision = "fp32", rounds: int = 5) -> Peak:
    """Time one large matrix product and one 3x3 convolution of ResNet's middle, on the CPU."""
    size, pictures, channels, side = 1536, 16, 256, 14
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    x = torch.randn(pictures, channels, side, side, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, dtype=dtype)
    layer = layer.to(memory_format=torch.channels_last)
    calls = {"matmul": lambda: a @ b, "convolution": lambda: layer(x)}
    times = interleaved(calls, rounds, warmup=2)
    work = {
        "matmul": 2 * size**3,
        "convolution": 2 * 9 * channels**2 * side**2 * pictures,
    }
    return Peak(**{name: work[name] / min(times[name]) / 1e9 for name in work})


def measure_bandwidth(rounds: int = 5) -> float:
    """Bytes a second of a copy too large for the caches, read and written ones together."""
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, rounds)
    return 2 * COPY_BYTES / min(times["copy"])


def machine() -> dict[str, object]:
    """What a reader must know of the machine to judge the figures."""
    return {
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": choose_precision("auto", torch.device("cpu")),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }
