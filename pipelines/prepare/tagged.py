"""Any Parquet or JSON lines with text, perhaps a picture, and known values or labelled spans."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.prepare.columns import ResolvedColumns
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.lines import read_lines
from pipelines.prepare.matching import match_specs
from pipelines.prepare.pictures import PictureFolder, check_picture
from pipelines.prepare.rows import (
    Problem,
    RawProduct,
    RowError,
    check_name,
    check_texts,
    specs_of,
)
from pipelines.prepare.shards import PARQUET, Shard
from pipelines.prepare.target_scores import match_target_scores
from ulsdram_core.errors import PictureError
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import GoldSpan

_ROWS_AT_ONCE = 256


def read_tagged(
    shard: Shard, config: PrepareConfig, columns: ResolvedColumns
) -> Iterator[RawProduct | Problem | None]:
    """Products of one row group, or of the lines that begin in a byte range."""
    folder = PictureFolder(config.place(config.images)) if config.images else None
    is_parquet = shard.file.path.endswith(PARQUET)
    rows = _parquet_rows if is_parquet else _json_rows
    for number, row in rows(shard, config, columns):
        if row is None or isinstance(row, Problem):
            yield row
            continue
        try:
            yield _product(number, row, shard, folder, config, columns)
        except RowError as error:
            yield Problem(number, error.reason, str(error))


def _parquet_rows(
    shard: Shard, config: PrepareConfig, columns: ResolvedColumns
) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    filesystem = config.place(config.input).arrow
    names = list(dict.fromkeys([*columns.named(), *config.keep]))
    number, total = 0, 0
    try:
        with pq.ParquetFile(shard.file.path, filesystem=filesystem) as file:
            total = file.metadata.row_group(shard.start).num_rows
            batches = file.iter_batches(
                batch_size=_ROWS_AT_ONCE, row_groups=[shard.start], columns=names
            )
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        detail = f"row group {shard.start}: {error}"
        yield number, Problem(number, Reason.UNREADABLE_ROW_GROUP, detail, total - number)


def _json_rows(
    shard: Shard, config: PrepareConfig, _columns: ResolvedColumns
) -> Iterator[tuple[int, dict[str, Any] | Problem | None]]:
    place = config.place(config.input)
    with place.fs.open(shard.file.path, "rb") as file:
        lines = read_lines(file, start=shard.start, end=shard.end, max_bytes=config.max_line_bytes)
        for number, line in lines:
            try:
                yield number, parse_json_line(line, max_bytes=config.max_line_bytes)
            except RowError as error:
                yield number, Problem(number, error.reason, str(error))


def parse_json_line(line: bytes | None, *, max_bytes: int) -> dict[str, Any] | None:
    """The object on a line, None for a blank line; RowError for anything else."""
    if line is None:
        raise RowError("line_too_long", f"more than {max_bytes} bytes")
    if not line.strip(b" \t\r\n\xef\xbb\xbf"):
        return None
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowError(Reason.INVALID_TEXT, "not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RowError("malformed_json", str(error)) from error
    if not isinstance(row, dict):
        raise RowError(Reason.WRONG_TYPE, f"line is a {type(row).__name__}, expected an object")
    return row


def _product(
    number: int,
    row: Mapping[str, Any],
    shard: Shard,
    folder: PictureFolder | None,
    config: PrepareConfig,
    columns: ResolvedColumns,
) -> RawProduct:
    given = {"title": row.get(columns.title)}
    if columns.description:
        given["description"] = row.get(columns.description)
    texts = check_texts(given, max_chars=config.max_chars)
    key = row.get(columns.product_id) if columns.product_id else None
    category = row.get(columns.category) if columns.category else None
    product = RawProduct(
        line=number,
        product_id=check_name(key, "product id")
        if key not in (None, "")
        else _made_id(shard, number),
        texts=texts,
        category=check_name(category, "category") if category is not None else None,
        extra={name: _as_text(row.get(name)) for name in config.keep},
    )
    _add_gold(product, row, config, columns)
    if columns.image:
        _add_pictures(product, row.get(columns.image), folder, config)
    return product


def _made_id(shard: Shard, number: int) -> str:
    """Rows without a key are known by their place; stable as long as the file is."""
    return f"{shard.file.name}@{shard.start}#{number}"


def _as_text(value: Any) -> str | None:
    return None if value is None else check_name(str(value), "a kept column")


def _add_gold(
    product: RawProduct, row: Mapping[str, Any], config: PrepareConfig, columns: ResolvedColumns
) -> None:
    given = row.get(columns.specs) if columns.specs else None
    if columns.specs == "target_scores" and isinstance(given, Mapping):
        scored = match_target_scores(product.texts, given, max_values=config.max_values)
        product.specs = list(dict.fromkeys((*scored.found, *scored.missing)))
        product.gold, product.outside = list(scored.spans), list(scored.missing)
        return
    product.specs = specs_of(_decoded(given), max_values=config.max_values)
    labelled = row.get(columns.gold) if columns.gold else None
    if labelled is not None:
        _keep_gold(product, _decoded(labelled))
    elif given is None:
        raise RowError("not_labelled", "neither gold nor specs")
    else:
        matches = match_specs(product.texts, product.specs)
        product.gold, product.outside = list(matches.spans), list(matches.missing)


def _decoded(given: Any) -> Any:
    """Specs or gold; CSV-minded writers put JSON into a string column."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise RowError("malformed_json", "specs or gold is a string that is not JSON") from error


def _keep_gold(product: RawProduct, given: Any) -> None:
    """Spans as labelled; those that do not say what the text says are left out and listed."""
    if not isinstance(given, list):
        raise RowError(Reason.WRONG_TYPE, f"gold is a {type(given).__name__}, expected a list")
    for item in given:
        try:
            product.gold.append(_span(item, product.texts))
        except RowError as error:
            product.notes.append(Problem(product.line, error.reason, str(error), num_rows=0))
    labelled = {span.attribute for span in product.gold}
    product.outside = [spec for spec in product.specs if spec[0] not in labelled]


def _span(item: Any, texts: Mapping[str, str]) -> GoldSpan:
    if not isinstance(item, Mapping):
        raise RowError("invalid_gold", f"span is a {type(item).__name__}, expected an object")
    attribute = check_name(item.get("attribute"), "an attribute")
    source = item.get("source") or "title"
    start, end = item.get("start"), item.get("end")
    if source not in texts or not isinstance(start, int) or not isinstance(end, int):
        raise RowError("invalid_gold", f"span of {attribute!r} has no usable source, start, end")
    text = texts[source]
    if not (attribute and 0 <= start < end <= len(text)):
        raise RowError(
            "invalid_gold", f"span of {attribute!r} is [{start}, {end}) in {len(text)} characters"
        )
    value = item.get("value")
    if value is not None and str(value).casefold() != text[start:end].casefold():
        raise RowError(
            "invalid_gold", f"span of {attribute!r} is {text[start:end]!r}, expected {value!r}"
        )
    return GoldSpan(attribute, text[start:end], start, end, source)


def _add_pictures(
    product: RawProduct, given: Any, folder: PictureFolder | None, config: PrepareConfig
) -> None:
    candidates = given if isinstance(given, list) else [given]
    for candidate in candidates:
        if candidate is None or len(product.pictures) == config.max_pictures:
            continue
        product.num_pictures += 1
        try:
            product.pictures.append(_picture(candidate, folder))
        except PictureError as error:
            product.broken_pictures.append(str(error.reason))


def _picture(given: Any, folder: PictureFolder | None) -> bytes:
    if isinstance(given, bytes):
        return check_picture(given)
    if isinstance(given, str) and folder is not None:
        return folder.read(given)
    raise PictureError(
        "the picture is neither bytes nor a name below --images", reason=Reason.WRONG_TYPE
    )
