"""What the columns of a labelled products table must hold; TableError says what they hold."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns

GOLD_TEXTS, GOLD_OFFSETS = ("attribute", "value"), ("start", "end")


class TableError(ValueError):
    """A labelled table that cannot be used."""


def require_named(place: Storage, schema: pa.Schema, columns: Columns, *roles: str) -> None:
    """Refuse a column that was named but is not there; the usual ones may be absent."""
    for role in roles:
        name = getattr(columns, role)
        usual = Columns.model_fields[role].default
        if name not in (None, usual) and name not in schema.names:
            raise TableError(
                f"{place.uri} has no column {name!r} (columns.{role}), expected one of "
                f"{schema.names}"
            )


def require_gold(place: Storage, schema: pa.Schema, columns: Columns) -> None:
    """Refuse a table whose gold is missing or is no list of spans."""
    if columns.gold is None or columns.gold not in schema.names:
        raise TableError(
            f"{place.uri} has no column {columns.gold!r}, expected gold spans; run jobs/prepare.py"
        )
    kind = schema.field(columns.gold).type
    if not _holds_spans(kind):
        raise TableError(
            f"{place.uri}: column {columns.gold!r} is {kind}, expected list<struct<attribute: "
            "string, value: string, start: int, end: int>>; run jobs/prepare.py"
        )


def specs_columns(place: Storage, schema: pa.Schema, columns: Columns) -> list[str]:
    """Return the column of closed values, if there is one; TableError if it holds no such."""
    require_named(place, schema, columns, "specs")
    if columns.specs is None or columns.specs not in schema.names:
        return []
    kind = schema.field(columns.specs).type
    if not _holds_specs(kind):
        raise TableError(
            f"{place.uri}: column {columns.specs!r} is {kind}, expected list<struct<attribute: "
            "string, value: string>>; name another with columns.specs, or none with null"
        )
    return [columns.specs]


def picture_columns(place: Storage, schema: pa.Schema, columns: Columns) -> list[str]:
    """Return columns of encoded pictures, in the order in which they are used.

    Addresses of pictures are refused, except in a usual `image_uri` column beside pictures.
    """
    require_named(place, schema, columns, "image", "images", "image_uri")
    present = [name for name in columns.pictures() if name in schema.names]
    embedded = [name for name in present if _holds_bytes(schema.field(name).type)]
    for name in present:
        kind = schema.field(name).type
        is_usual_uri = name == columns.image_uri == Columns.model_fields["image_uri"].default
        if name in embedded or (is_usual_uri and embedded):
            continue
        what = "addresses of pictures" if _holds_texts(kind) else "no pictures"
        raise TableError(
            f"{place.uri}: column {name!r} is {kind} ({what}), expected binary or list<binary>; "
            "jobs/prepare.py tagged embeds pictures"
        )
    return embedded


def _holds_specs(kind: pa.DataType) -> bool:
    if not _is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {field.name: field.type for field in _fields(kind.value_type)}
    return all(name in fields and _is_text(fields[name]) for name in GOLD_TEXTS)


def _holds_spans(kind: pa.DataType) -> bool:
    if not _is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {field.name: field.type for field in _fields(kind.value_type)}
    return (
        all(name in fields and _is_text(fields[name]) for name in GOLD_TEXTS)
        and all(name in fields and pa.types.is_integer(fields[name]) for name in GOLD_OFFSETS)
        and _is_text(fields.get("source", pa.string()))
    )


def _fields(kind: pa.StructType) -> Iterator[pa.Field]:
    return (kind.field(number) for number in range(kind.num_fields))


def _holds_bytes(kind: pa.DataType) -> bool:
    inner = kind.value_type if _is_list(kind) else kind
    # A column without a single picture may have no type at all.
    return any(
        test(inner) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null)
    )


def _holds_texts(kind: pa.DataType) -> bool:
    return _is_text(kind.value_type if _is_list(kind) else kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def texts_of(row: Mapping[str, Any], columns: Columns, sources: Sequence[str]) -> dict[str, str]:
    """Return a row's texts by source, without those that are null."""
    found = {source: row.get(columns.sources.get(source, source)) for source in sources}
    return {source: text for source, text in found.items() if text is not None}


def encoded_pictures(row: Mapping[str, Any], columns: Sequence[str]) -> list[bytes]:
    """Return a row's picture bytes from binary and list<binary> columns."""
    found: list[bytes] = []
    for name in columns:
        value = row.get(name)
        if isinstance(value, bytes):
            found.append(value)
        elif isinstance(value, list):
            found += [item for item in value if isinstance(item, bytes)]
    return found
