"""Which files hold rows, told by how their names end; case does not matter."""

from __future__ import annotations

PARQUET = (".parquet", ".parq", ".pq")
LINES = (".jsonl", ".ndjson")
CSV = (".csv",)
PACKED = ".gz"


def row_endings() -> tuple[str, ...]:
    """Endings of all files that rows can be read from."""
    return (*PARQUET, *LINES, *CSV, *(ending + PACKED for ending in LINES + CSV))


def is_parquet(path: str) -> bool:
    """Whether the file has row groups that can be read one by one."""
    return path.lower().endswith(PARQUET)


def is_csv(path: str) -> bool:
    """Whether the file is text with a header line."""
    return path.lower().removesuffix(PACKED).endswith(CSV)


def is_whole(path: str) -> bool:
    """Whether the file can only be read from its start: packed, or with line ends in values."""
    return path.lower().endswith(PACKED) or is_csv(path)
