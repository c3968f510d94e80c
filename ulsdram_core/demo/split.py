"""Which part of a benchmark a catalogue entry belongs to."""

from hashlib import sha256
from typing import Literal

Split = Literal["train", "valid", "test"]


def split(catalog_id: str) -> Split:
    """Return the part: 80 % train, 10 % valid, 10 % test; a product has all listings in one."""
    share = int.from_bytes(sha256(catalog_id.encode()).digest()[:8], "big") / 2**64
    if share < 0.8:
        return "train"
    return "valid" if share < 0.9 else "test"
