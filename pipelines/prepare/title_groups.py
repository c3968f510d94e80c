"""Titles that say the same thing form a group, and a group never straddles two splits."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

SPLITS = ("train", "valid", "test")

_SIZES = frozenset(
    {"xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl", "xxxxl", "small", "medium", "large"}
    | {"size", "sizes", "uk", "us", "eu", "cm", "mm", "ml", "kg", "oz"}
)
# Scripts written without spaces: every character stands alone.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+")


def normalized_title(title: str) -> str:
    """Return lower-cased words without punctuation, numbers and sizes, each once, sorted.

    A title of nothing else ("501", "XL") stands for itself.
    """
    folded = unicodedata.normalize("NFKC", title).casefold()
    words = {word for word in _TOKEN.findall(folded) if word not in _SIZES}
    return " ".join(sorted(words)) or " ".join(folded.split())


def title_group(title: str) -> int:
    """Return a signed 64-bit number, equal for titles with equal `normalized_title`."""
    digest = hashlib.blake2b(normalized_title(title).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def split_of_group(group: int, shares: Mapping[str, float]) -> str:
    """Return the split a group belongs to; `shares` gives valid's and test's part of all groups."""
    position = (group % 2**64) / 2**64
    for split in ("test", "valid"):
        position -= shares.get(split, 0.0)
        if position < 0:
            return split
    return "train"


def split_of_name(parts: Iterable[str]) -> str | None:
    """Return the split that a file's folders or name tell ("val", "train_large.jsonl"), if any."""
    for part in parts:
        word = re.match(r"[a-z]+", part.lower())
        if word and (split := _ALIASES.get(word.group())):
            return split
    return None


_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
