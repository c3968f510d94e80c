"""Finds the columns of a tagged input over all of its files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pipelines.prepare.columns import (
    ResolvedColumns,
    check_schemas,
    open_to_late_keys,
    resolve_columns,
)
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.formats import is_csv, is_parquet
from pipelines.prepare.shards import InputFile, Inputs
from pipelines.prepare.table_rows import first_keys

# Lines looked at for their keys, spread over the files; a later row may have keys of its own.
_NUM_LINES = 1_000
_NUM_READERS = 16


def find_columns(config: PrepareConfig, inputs: Inputs) -> ResolvedColumns | None:
    """Columns by role, over the union of what the files have; None for kinds without columns."""
    if config.kind != "tagged":
        if config.keep:
            raise ValueError(
                f"--keep {config.keep[0]} needs a tagged input; {config.kind} has none"
            )
        return None
    if not inputs.shards:
        listed = "; ".join(f"{file}: {problem.detail}" for file, problem in inputs.problems[:3])
        why = listed or f"the {len(inputs.schemas)} tables in it have columns but no rows"
        raise ValueError(f"found no rows to read in --in {config.input}; {why}")
    keys = _keys_of_text(config, inputs)
    names = dict.fromkeys(name for schema in inputs.schemas.values() for name in schema.names)
    for own in keys.values():
        names |= dict.fromkeys(own)
    for shard in inputs.shards:
        names |= dict.fromkeys(name for name, _ in shard.file.partitions)
    files = list(dict.fromkeys(shard.file.name for shard in inputs.shards))
    if not names:
        raise ValueError(f"found no row with columns in {files[0]}, expected JSON objects or CSV")
    where = files[0] if len(files) == 1 else f"{len(files)} files"
    columns = check_schemas(resolve_columns(config, names, where=where), inputs.schemas)
    is_lines = any(not is_parquet(name) and not is_csv(name) for name in files)
    return open_to_late_keys(columns, config) if is_lines else columns


def _keys_of_text(config: PrepareConfig, inputs: Inputs) -> dict[str, list[str]]:
    """Columns of the first rows of every file that has no schema, by file name."""
    files: dict[str, InputFile] = {
        shard.file.name: shard.file for shard in inputs.shards if not is_parquet(shard.file.path)
    }
    each = -(-_NUM_LINES // max(len(files), 1))
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        found = pool.map(lambda file: first_keys(file, config, num_rows=each), files.values())
        return dict(zip(files, found, strict=True))
