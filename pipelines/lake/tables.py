"""The three tables: names, columns, layout (DESIGN: products in; extractions, quarantine out).

An output folder T holds `extractions/` and `quarantine/` (Delta tables) and `_runs/`.
`bucket = bucket_of(product_id, num_buckets)`; the number is fixed when the table is created and
kept in the table's own configuration.
"""

import errno
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pydantic import BaseModel, ConfigDict, Field

from pipelines.lake.digests import as_halves, digests
from pipelines.lake.storage import Storage, retrying

SCHEMA_VERSION = 1
EXTRACTIONS = "extractions"
QUARANTINE = "quarantine"
RUNS = "_runs"
SCHEMA_VERSION_KEY = "ulsdram.schema_version"
NUM_BUCKETS_KEY = "ulsdram.num_buckets"

VALUE = pa.struct(
    [
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("normalized", pa.string()),
        ("source", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("confidence", pa.float32()),
    ]
)
VALUE_FIELDS = tuple(field.name for field in VALUE)
SCORE = pa.struct([("attribute", pa.string()), ("score", pa.float32())])
SPEC = pa.struct([("attribute", pa.string()), ("value", pa.string())])
GOLD = pa.struct(
    [
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("source", pa.string()),
    ]
)
TIMESTAMP = pa.timestamp("us", tz="UTC")
# What an embedding model writes beside them.
VECTORS = ("text_vector", "picture_vector", "joint_vector")

EXTRACTIONS_SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("bucket", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("values", pa.list_(VALUE)),
        ("range", pa.list_(SCORE)),
        ("input_hash", pa.string()),
        ("model_id", pa.string()),
        ("run_id", pa.string()),
        ("extracted_at", TIMESTAMP),
        ("schema_version", pa.int32()),
    ]
)


def extractions_schema(vectors: Iterable[str] = ()) -> pa.Schema:
    """Return the extractions table, with columns of vectors as an embedding model fills them."""
    schema = EXTRACTIONS_SCHEMA
    for name in vectors:
        schema = schema.append(pa.field(name, pa.list_(pa.float32())))
    return schema


# row_group -1: the whole file; row -1: the whole row group; num_rows: input rows the entry
# stands for (null when a file is so broken that nobody knows)
QUARANTINE_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row_group", pa.int32()),
        ("row", pa.int64()),
        ("num_rows", pa.int64()),
        ("product_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("run_id", pa.string()),
        ("quarantined_at", TIMESTAMP),
        ("schema_version", pa.int32()),
    ]
)


class Columns(BaseModel):
    """Which columns of a products table hold what; a null name means: there is no such column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product_id: str = Field("product_id", description="Key; strings, or integers read as strings.")
    sources: dict[str, str] = Field(
        default_factory=lambda: {"title": "title", "description": "description"},
        description="Text source name -> column; sources the model does not use are not read.",
    )
    image: str | None = Field("image", description="One encoded picture per row (binary).")
    images: str | None = Field("images", description="Several encoded pictures (list<binary>).")
    image_uri: str | None = Field("image_uri", description="URI(s) of pictures kept as files.")
    category: str | None = Field("category", description="Category name; integers are text.")
    updated_at: str | None = Field(
        "updated_at",
        description="Orders duplicate ids, newest wins; times, ISO 8601 texts or integers.",
    )
    specs: str | None = Field("specs", description="list<struct<attribute,value>>.")
    gold: str | None = Field("gold", description="Labelled spans.")

    def pictures(self) -> tuple[str, ...]:
        """Return the configured picture columns, in the order in which their pictures are used."""
        return tuple(name for name in (self.image, self.images, self.image_uri) if name)


def products_schema(columns: Columns | None = None) -> pa.Schema:
    """Return the products table as this system writes it (`prepare`, the demo, tests)."""
    columns = columns or Columns()
    fields = [(columns.product_id, pa.string())]
    fields += [(name, pa.string()) for name in columns.sources.values()]
    optional = [
        (columns.image, pa.binary()),
        (columns.images, pa.list_(pa.binary())),
        (columns.image_uri, pa.string()),
        (columns.category, pa.string()),
        (columns.updated_at, TIMESTAMP),
        (columns.specs, pa.list_(SPEC)),
        (columns.gold, pa.list_(GOLD)),
    ]
    return pa.schema(fields + [(name, kind) for name, kind in optional if name])


def id_digest(product_id: str | bytes) -> bytes:
    """Return 16 bytes that stand for a product id wherever ids are compared or bucketed."""
    data = product_id.encode() if isinstance(product_id, str) else product_id
    return hashlib.blake2b(data, digest_size=16).digest()


def id_hashes(product_ids: Iterable[str | bytes]) -> np.ndarray:
    """Return [N, 2] uint64 halves of the ids' digests; [:, 0] decides the bucket."""
    return as_halves(digests([i.encode() if isinstance(i, str) else i for i in product_ids]))


def bucket_of(product_id: str, num_buckets: int) -> int:
    """Return the partition that holds this product."""
    return int.from_bytes(id_digest(product_id)[:8], "little") % num_buckets


def open_table(table: Storage, name: str) -> DeltaTable | None:
    """Open the Delta table `name` below folder T at its newest version; None: there is none."""
    place = table.join(name)
    delta = retrying(lambda: _open_or_none(place))
    if delta is None:
        return None
    check_schema_version(delta.metadata().configuration, place.uri)
    return delta


def _open_or_none(place: Storage) -> DeltaTable | None:
    try:
        return DeltaTable(place.delta_uri, storage_options=place.delta_options or None)
    except TableNotFoundError as error:
        # taking a table for a new one would publish every product a second time
        if any(entry.endswith(".json") for entry in place.join("_delta_log").names()):
            message = f"{place.uri} has a log but was not found for a moment; run again"
            raise OSError(errno.EAGAIN, message) from error
        return None


def check_schema_version(configuration: Mapping[str, Any], uri: str) -> None:
    """Refuse a table that another schema version wrote."""
    found = configuration.get(SCHEMA_VERSION_KEY)
    if found != str(SCHEMA_VERSION):
        raise ValueError(
            f"found table {uri} with schema version {found}, expected {SCHEMA_VERSION}; "
            "write to a new --output or use the release that wrote it"
        )


def num_buckets_of(delta: DeltaTable) -> int:
    """Return the number of buckets that the table was created with."""
    return int(delta.metadata().configuration[NUM_BUCKETS_KEY])


def vector_columns(delta: DeltaTable) -> tuple[str, ...]:
    """Return the columns of vectors that an extractions table was created with."""
    return tuple(f.name for f in delta.schema().fields if f.name not in EXTRACTIONS_SCHEMA.names)


def create_table(
    table: Storage, name: str, *, num_buckets: int, vectors: Iterable[str] = ()
) -> DeltaTable:
    """Open the Delta table `name`; where there is none, create it empty."""
    delta = open_table(table, name)  # first: to create what is there costs as much again
    if delta is not None:
        return delta
    place = table.join(name)
    uri = place.delta_uri
    place.make_folder()
    is_extractions = name == EXTRACTIONS
    DeltaTable.create(
        uri,
        extractions_schema(vectors) if is_extractions else QUARANTINE_SCHEMA,
        mode="ignore",  # somebody may be faster
        partition_by=["bucket"] if is_extractions else None,
        name=name,
        configuration={
            SCHEMA_VERSION_KEY: str(SCHEMA_VERSION),
            NUM_BUCKETS_KEY: str(num_buckets),
        },
        storage_options=place.delta_options or None,
        raise_if_key_not_exists=False,
    )
    delta = open_table(table, name)
    assert delta is not None
    return delta
