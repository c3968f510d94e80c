"""Vectors of a split of a products table, with the columns that the tasks ask about."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.labelled.columns import encoded_pictures, texts_of
from pipelines.labelled.table import LabelledTable
from pipelines.lake.storage import file_version
from ulsdram_core.eclip.embedder import Embedder, Vectors
from ulsdram_core.image import ImageConfig, decode_usable, picture_digest
from ulsdram_core.schema import DecodedProduct

BATCH = 256
PICTURE_HASH = "picture_hash"


@dataclass(frozen=True)
class SplitVectors:
    """What a system makes of a split: features before the heads, embeddings after them."""

    frame: pl.DataFrame
    """The table's columns without pictures, with `picture_hash` and `texts`."""
    features: Vectors
    embeddings: Vectors | None
    """None for encoders whose heads were never trained."""

    def matrix(self, modality: str) -> Tensor:
        """Return [N, D] what a linear probe sees: unit features of text, picture, or both."""
        text = torch.nn.functional.normalize(self.features.text, dim=-1)
        picture = torch.nn.functional.normalize(self.features.picture, dim=-1)
        return {"text": text, "picture": picture, "both": torch.cat([text, picture], 1)}[modality]

    def space(self, modality: str) -> Tensor:
        """Return [N, E] unit vectors to compare rows by: embeddings if any, else features."""
        if self.embeddings is None:
            return torch.nn.functional.normalize(self.matrix(modality), dim=-1)
        vectors = self.embeddings
        return {"text": vectors.text, "picture": vectors.picture, "both": vectors.joint()}[modality]


def decoded_products(
    rows: pa.Table, table: LabelledTable, image: ImageConfig
) -> list[DecodedProduct]:
    """Return rows of a products table with pictures decoded; unusable ones are left out."""
    found = []
    for row in rows.to_pylist():
        pictures, _ = decode_usable(encoded_pictures(row, table.picture_columns), image)
        product_id = str(row[table.columns.product_id])
        found.append(
            DecodedProduct(product_id, texts_of(row, table.columns, table.sources), tuple(pictures))
        )
    return found


def split_frame(table: LabelledTable, limit: int | None) -> pl.DataFrame:
    """Return the columns without pictures, a hash of the first picture, and the texts in one."""
    frame = table.scan() if limit is None else table.scan().head(limit)
    names = [table.columns.sources.get(source, source) for source in table.sources]
    others = [
        name
        for name, kind in frame.collect_schema().items()
        if kind not in (pl.Binary, pl.List(pl.Binary))
    ]
    rows = frame.select(others).collect(engine="streaming")
    hashes: list[str | None] = []
    for batch in _first(table, limit):
        for row in batch.select(list(table.picture_columns)).to_pylist():
            pictures = encoded_pictures(row, table.picture_columns)
            hashes.append(picture_digest(pictures[0]) if pictures else None)
    return rows.with_columns(
        pl.concat_str(names, separator=" ", ignore_nulls=True).alias("texts"),
        pl.Series(PICTURE_HASH, hashes, dtype=pl.String),
    )


def _first(table: LabelledTable, limit: int | None) -> Iterator[pa.Table]:
    """Yield the first rows of the table, all without a limit."""
    left = table.num_rows if limit is None else limit
    for rows in table.batches(BATCH):
        if left <= 0:
            return
        yield rows.slice(0, left)
        left -= rows.num_rows


def embed_split(
    embedder: Embedder, table: LabelledTable, frame: pl.DataFrame, *, cache: Path | None
) -> SplitVectors:
    """Return vectors of the rows of `frame`, from the cache where this very model was there."""
    features = _cached(embedder, table, frame, cache)
    embeddings = None
    if embedder.parts.config.is_aligned:
        embeddings = embedder.project(features)
    return SplitVectors(frame, features, embeddings)


def _cached(
    embedder: Embedder, table: LabelledTable, frame: pl.DataFrame, cache: Path | None
) -> Vectors:
    path = cache and cache / f"{_key(embedder, table, frame)}.safetensors"
    if path and path.exists():
        found = load_file(path)
        has = found["has"].bool()
        return Vectors(found["text"], found["picture"], has[0], has[1])
    image = embedder.parts.config.image
    parts = [
        embedder.features(decoded_products(rows, table, image))
        for rows in _first(table, frame.height)
    ]
    vectors = join_vectors(parts)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        has = torch.stack([vectors.has_text_N, vectors.has_picture_N]).to(torch.uint8)
        save_file({"text": vectors.text, "picture": vectors.picture, "has": has}, path)
    return vectors


def join_vectors(parts: Sequence[Vectors]) -> Vectors:
    """Return several batches as one."""
    names = ("text", "picture", "has_text_N", "has_picture_N")
    return Vectors(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _key(embedder: Embedder, table: LabelledTable, frame: pl.DataFrame) -> str:
    """Return what names all that the vectors depend on: columns, files, the model."""
    infos = [table.place.sibling(name).info() for name in table.files]
    files = [
        (name, info.get("size"), file_version(info))
        for name, info in zip(table.files, infos, strict=True)
    ]
    columns = table.columns.model_dump(mode="json")
    known = [embedder.parts.model_id(), files, frame.height, table.sources, columns]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:24]
