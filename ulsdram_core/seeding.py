"""Seeds that depend only on what they are for, so that a resumed run repeats an unbroken one."""

import hashlib

import torch


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed for this purpose: the same parts, the same seed, on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded for this purpose."""
    return torch.Generator().manual_seed(seed_of(*parts))
