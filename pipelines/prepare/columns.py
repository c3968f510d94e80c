"""Which columns of a tagged input hold what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.shards import Inputs, RawFile, is_csv, is_parquet
from pipelines.prepare.table_rows import first_keys

_USUAL = {
    "title": ("title", "input_title", "input"),
    "description": ("description", "input_description"),
    "image": ("image", "images"),
    "image_uri": ("image_uri",),
    "specs": ("specs", "target_scores"),
    "gold": ("gold",),
    "category": ("category",),
    "product_id": ("product_id", "id"),
}


class ResolvedColumns(BaseModel):
    """Actual column names; None: the input has no such column."""

    model_config = ConfigDict(frozen=True)

    title: str
    description: str | None = None
    pictures: tuple[str, ...] = ()
    """Columns of picture bytes or of names below --images; each may hold lists."""
    image_uri: str | None = None
    specs: str | None = None
    gold: str | None = None
    category: str | None = None
    product_id: str | None = None
    has_picture_lists: bool = False
    unexpected: tuple[str, ...] = ()
    """Columns that are not read, and that a row of lines may have all the same."""

    def named(self) -> list[str]:
        """Return all columns to read."""
        fields = (self.title, self.description, *self.pictures, self.image_uri, self.specs)
        names = (*fields, self.gold, self.category, self.product_id)
        return [name for name in dict.fromkeys(names) if name]


def resolve_columns(
    config: PrepareConfig, columns: Iterable[str], *, where: str
) -> ResolvedColumns:
    """Match what was asked for, and the usual names, with the columns there are."""
    available = list(columns)
    for name in config.keep:
        _require(name, "--keep", available, where)
    found: dict[str, str | None] = {}
    for role, usual in _USUAL.items():
        asked = getattr(config.columns, role)
        if asked is not None:
            _require(asked, f"--{role.replace('_', '-')}", available, where)
        found[role] = asked or next((name for name in usual if name in available), None)
    if found["title"] is None:
        raise ValueError(f"found columns {available} in {where}, no title; name it with --title")
    if found["description"] == found["title"]:
        found["description"] = None
    if not config.use_gold:
        found["gold"] = None
    if found["gold"] is None and found["specs"] is None:
        raise ValueError(
            f"found columns {available} in {where}, neither gold nor specs; name one with --specs"
        )
    usual = (config.columns.image,) if config.columns.image else _USUAL["image"]
    pictures = tuple(name for name in usual if name in available)
    several = len(pictures) + (found["image_uri"] is not None) > 1
    return ResolvedColumns.model_validate(
        {**found, "pictures": pictures, "has_picture_lists": several}
    )


def open_to_late_keys(columns: ResolvedColumns, config: PrepareConfig) -> ResolvedColumns:
    """Return the columns of JSON lines, where any row may have a key that none before it had."""
    late: dict[str, object] = {
        role: getattr(columns, role) or _USUAL[role][0]
        for role in ("image_uri", "specs", "product_id")
    }
    if config.use_gold:
        late["gold"] = columns.gold or "gold"
    pictures = (config.columns.image,) if config.columns.image else _USUAL["image"]
    unexpected = tuple(
        name
        for role in ("description", "category")
        if getattr(columns, role) is None
        for name in _USUAL[role]
        if name not in columns.named()
    )
    late |= {"pictures": pictures, "has_picture_lists": True, "unexpected": unexpected}
    return columns.model_copy(update=late)


def check_schemas(columns: ResolvedColumns, schemas: Mapping[str, pa.Schema]) -> ResolvedColumns:
    """Check that every file has text and labels; others may be absent; finds picture lists."""
    labels = [name for name in (columns.specs, columns.gold) if name]
    for file, schema in schemas.items():
        _require(columns.title, "title", schema.names, file)
        if not any(name in schema.names for name in labels):
            _require(labels[0], "labels", schema.names, file)
    lists = any(
        name in schema.names and is_list(schema.field(name).type)
        for schema in schemas.values()
        for name in (*columns.pictures, columns.image_uri)
        if name is not None
    )
    return columns.model_copy(update={"has_picture_lists": columns.has_picture_lists or lists})


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column holds several items a row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _require(name: str, option: str, available: list[str], where: str) -> None:
    if name not in available:
        raise ValueError(f"found no column {name!r} ({option}) in {where}, only {available}")


# Lines looked at for their keys, spread over the files; a later row may have keys of its own.
_NUM_LINES = 1_000


_NUM_READERS = 16


def find_columns(config: PrepareConfig, inputs: Inputs) -> ResolvedColumns | None:
    """Return columns by role, of all that the files have; None for kinds without columns."""
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
    """Return columns of the first rows of every file that has no schema, by file name."""
    files: dict[str, RawFile] = {
        shard.file.name: shard.file for shard in inputs.shards if not is_parquet(shard.file.path)
    }
    each = -(-_NUM_LINES // max(len(files), 1))
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        found = pool.map(lambda file: first_keys(file, config, num_rows=each), files.values())
        return dict(zip(files, found, strict=True))
