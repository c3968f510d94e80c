"""Digests of rows."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


def digest(parts: Sequence[bytes | None]) -> bytes:
    """16 bytes over the parts; their borders and nulls count."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if part is None:
            state.update(b"\xff" * 8)
        else:
            state.update(len(part).to_bytes(8, "little"))
            state.update(part)
    return state.digest()


def as_halves(digests: Iterable[bytes]) -> np.ndarray:
    """Digests as [N, 2] uint64."""
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def as_hex(halves: np.ndarray) -> list[str]:
    """[N, 2] uint64 as 32 hex digits each, the form of `input_hash`."""
    text = np.ascontiguousarray(halves, dtype="<u8").tobytes().hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def from_hex(hashes: Sequence[str]) -> np.ndarray:
    """The inverse of `as_hex`."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype="<u8").reshape(-1, 2)
