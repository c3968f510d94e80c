"""Which columns of a tagged input hold what."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipelines.prepare.config import PrepareConfig

_USUAL = {
    "title": ("title", "input_title", "input"),
    "description": ("description", "input_description"),
    "image": ("image", "images"),
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
    image: str | None = None
    specs: str | None = None
    gold: str | None = None
    category: str | None = None
    product_id: str | None = None
    has_picture_lists: bool = False

    def named(self) -> list[str]:
        """All columns to read."""
        fields = (self.title, self.description, self.image, self.specs, self.gold)
        return [name for name in (*fields, self.category, self.product_id) if name]


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
    return ResolvedColumns.model_validate(found)


def check_schemas(
    columns: ResolvedColumns, schemas: dict[str, pa.Schema], *, keep: Iterable[str]
) -> ResolvedColumns:
    """Every file must have the columns; adds whether the picture column holds lists."""
    for file, schema in schemas.items():
        for name in (*columns.named(), *keep):
            _require(name, "column", schema.names, file)
    lists = any(
        columns.image is not None and _is_list(schema.field(columns.image).type)
        for schema in schemas.values()
    )
    return columns.model_copy(update={"has_picture_lists": lists})


def _require(name: str, option: str, available: list[str], where: str) -> None:
    if name not in available:
        raise ValueError(f"found no column {name!r} ({option}) in {where}, only {available}")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
