"""Any table with text, perhaps a picture, and known values or labelled spans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.prepare.columns import ResolvedColumns
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.pictures import PictureFolder, check_picture, reader_of
from pipelines.prepare.rows import (
    Problem,
    RawProduct,
    RowError,
    Specs,
    check_name,
    check_texts,
    match_specs,
    specs_of,
)
from pipelines.prepare.shards import Shard
from pipelines.prepare.table_rows import read_rows
from ulsdram_core.errors import PictureError
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import GoldSpan


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Where a row's pictures that are not in the table itself are read."""

    folder: PictureFolder | None
    addresses: PictureFolder

    def read(self, given: Any) -> bytes:
        """Return a picture as bytes, as {bytes, path} (Hugging Face's Image), or by name."""
        if isinstance(given, Mapping):
            given = given.get("bytes") or given.get("path")
        if isinstance(given, bytes):
            return check_picture(given)
        if isinstance(given, str) and self.folder is not None:
            return self.folder.read(given)
        raise PictureError(
            "the picture is neither bytes nor a name below --images", reason=Reason.WRONG_TYPE
        )

    def read_address(self, given: Any) -> bytes:
        """Return a picture by its address."""
        if isinstance(given, str):
            return self.addresses.read_address(given)
        raise PictureError("the address of the picture is no text", reason=Reason.WRONG_TYPE)


def read_tagged(
    shard: Shard, config: PrepareConfig, columns: ResolvedColumns
) -> Iterator[RawProduct | Problem | None]:
    """Yield products of a row group, of the lines that begin in a byte range, or of a CSV file."""
    pictures = _picture_places(shard, config)
    for number, row in read_rows(shard, config, [*columns.named(), *config.keep]):
        if row is None or isinstance(row, Problem):
            yield row
            continue
        try:
            yield _product(number, row, shard, pictures, config, columns)
        except RowError as error:
            yield Problem(number, error.reason, str(error))


def _picture_places(shard: Shard, config: PrepareConfig) -> _Pictures:
    folder = PictureFolder.of(config)
    own = config.place(config.input).sibling(shard.file.path.rpartition("/")[0] or "/")
    return _Pictures(folder, folder or PictureFolder(own, reader_of(config)))


def _product(
    number: int,
    row: Mapping[str, Any],
    shard: Shard,
    pictures: _Pictures,
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
    for name in columns.pictures:
        _add_pictures(product, row.get(name), pictures.read, config)
    if columns.image_uri:
        _add_pictures(product, row.get(columns.image_uri), pictures.read_address, config)
    for name in columns.unexpected:
        if row.get(name) is not None:
            detail = f"no row before had {name!r}, so it is not read; name it as an option"
            product.notes.append(Problem(number, "unexpected_column", detail, num_rows=0))
    return product


def _made_id(shard: Shard, number: int) -> str:
    """Return an id for a row without a key: its place, stable as long as the file is."""
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
    read = specs_of(_decoded(given), max_values=config.max_values)
    product.specs = read.specs
    product.notes += read.note(product.line)
    labelled = row.get(columns.gold) if columns.gold else None
    if labelled is not None:
        _keep_gold(product, _decoded(labelled))
    elif given is None:
        raise RowError("not_labelled", "neither gold nor specs")
    else:
        matches = match_specs(product.texts, product.specs)
        product.gold, product.outside = list(matches.spans), list(matches.missing)


def _decoded(given: Any) -> Any:
    """Return specs or gold as values; CSV-minded writers put JSON into a string column."""
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
    product: RawProduct, given: Any, read: Callable[[Any], bytes], config: PrepareConfig
) -> None:
    candidates = given if isinstance(given, list) else [given]
    for candidate in candidates:
        if candidate is None or len(product.pictures) == config.max_pictures:
            continue
        product.num_pictures += 1
        try:
            product.pictures.append(read(candidate))
        except PictureError as error:
            product.broken_pictures.append(str(error.reason))


ABSENT = "n/a"


@dataclass(frozen=True, slots=True)
class TargetMatches:
    """Spans of the values, which values were found, and which occur in no text they belong to."""

    spans: tuple[GoldSpan, ...]
    found: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]


def match_target_scores(
    texts: Mapping[str, str], scores: Mapping[str, Any], *, max_values: int
) -> TargetMatches:
    """Return spans by MAE's rule, each value only in the texts that its `pid` numbers name.

    A value that is not in those texts is missing even when another text has it.
    """
    by_sources: dict[tuple[str, ...], Specs] = {}
    for number, (spec, sources) in enumerate(_values(scores, list(texts))):
        if number == max_values:
            raise RowError("too_many_values", f"more than {max_values} attribute values")
        by_sources.setdefault(sources, []).append(spec)
    spans: list[GoldSpan] = []
    found: Specs = []
    missing: Specs = []
    for sources, specs in by_sources.items():
        matches = match_specs({source: texts[source] for source in sources}, specs)
        spans += matches.spans
        missing += matches.missing
        found += [spec for spec in specs if spec not in matches.missing]
    return TargetMatches(tuple(spans), tuple(found), tuple(missing))


def _values(
    scores: Mapping[str, Any], sources: list[str]
) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    for attribute, values in scores.items():
        if not isinstance(values, Mapping):
            raise RowError(Reason.WRONG_TYPE, "target_scores holds no {value: score} objects")
        for value, score in values.items():
            if value.strip().lower() == ABSENT or not score:
                continue
            spec = check_name(attribute, "an attribute"), check_name(value, "a value")
            if all(spec):
                yield spec, _sources_of(score, sources)


def _sources_of(score: Any, sources: list[str]) -> tuple[str, ...]:
    numbers = score.get("pid") if isinstance(score, Mapping) else None
    if not isinstance(numbers, list):
        return tuple(sources)
    return tuple(source for number, source in enumerate(sources) if number in numbers)
