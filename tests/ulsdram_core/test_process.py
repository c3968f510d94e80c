"""Threads and memory of a process that runs models."""

import platform
import subprocess
import sys

import pytest
import torch

from ulsdram_core.process import tune_process

SCRIPT = """
import resource, sys
import torch
from ulsdram_core.process import tune_process

if sys.argv[1] == "tuned":
    tune_process(1)
assert torch.get_num_threads() == 1
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(20):
    if turn == 10:  # where the heap begins is random; until it fits both it grows for some turns
        before = faults()
    torch.ones(16, 2**20).exp()
print(faults() - before)
"""


def faults_of(kind):
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    command = [sys.executable, "-c", SCRIPT, kind]
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_large_tensors_are_not_mapped_anew():
    assert faults_of("tuned") < 0.2 * faults_of("plain")


def test_none_leaves_the_threads():
    before = torch.get_num_threads()
    tune_process(None)
    assert torch.get_num_threads() == before
