"""MAE: JSON files, each a list of items with texts, picture paths and `specs`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.matching import match_specs
from pipelines.prepare.pictures import PictureFolder
from pipelines.prepare.rows import (
    Problem,
    RawProduct,
    RowError,
    check_name,
    check_texts,
    specs_of,
)
from pipelines.prepare.shards import Shard
from ulsdram_core.errors import PictureError
from ulsdram_core.mae import SOURCES, MaeError, parse_mae_item
from ulsdram_core.reasons import Reason

# An item that names thousands of broken pictures must not hold up the rest.
_MAX_TRIES = 100


def read_mae(shard: Shard, config: PrepareConfig) -> Iterator[RawProduct | Problem | None]:
    """Products of one JSON file; a problem's line is the item's place in the list, from 1."""
    folder = PictureFolder(config.place(config.images)) if config.images else None
    try:
        items = _items(shard, config)
    except RowError as error:
        yield Problem(0, error.reason, str(error), num_rows=0)
        return
    for number, item in enumerate(items, start=1):
        try:
            yield _product(number, item, shard, folder, config)
        except RowError as error:
            yield Problem(number, error.reason, str(error))


def _items(shard: Shard, config: PrepareConfig) -> list[Any]:
    if shard.file.size > config.max_json_bytes:
        raise RowError("file_too_large", f"more than {config.max_json_bytes} bytes")
    place = config.place(config.input)
    try:
        items = json.loads(place.fs.cat_file(shard.file.path))
    except OSError as error:
        raise RowError(Reason.UNREADABLE_FILE, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise RowError("malformed_json", str(error)) from error
    if isinstance(items, dict):
        return [items]
    if not isinstance(items, list):
        raise RowError("malformed_json", f"holds a {type(items).__name__}, expected a list")
    return items


def _product(
    number: int, item: Any, shard: Shard, folder: PictureFolder | None, config: PrepareConfig
) -> RawProduct:
    try:
        parsed = parse_mae_item(item)
    except MaeError as error:
        raise RowError(Reason.WRONG_TYPE, str(error)) from error
    if len(parsed.specs) > config.max_values:
        raise RowError("too_many_values", f"more than {config.max_values} attribute values")
    texts = check_texts(
        {source: parsed.texts.get(source) for source in SOURCES}, max_chars=config.max_chars
    )
    read = specs_of(parsed.specs, max_values=config.max_values)
    specs = read.specs
    matches = match_specs(texts, specs)
    place = f"{shard.file.name}#{number}"
    product = RawProduct(
        line=number,
        product_id=check_name(parsed.product_id, "diffbotUri") if parsed.product_id else place,
        texts=texts,
        gold=list(matches.spans),
        specs=specs,
        outside=list(matches.missing),
        notes=read.note(number),
    )
    if Reason.WRONG_TYPE in parsed.reasons:
        detail = "a title, text, image or spec of another type was left out"
        product.notes.append(Problem(number, Reason.WRONG_TYPE, detail, num_rows=0))
    _add_pictures(product, parsed.pictures, folder, config)
    return product


def _add_pictures(
    product: RawProduct, names: Sequence[str], folder: PictureFolder | None, config: PrepareConfig
) -> None:
    """Read up to `max_pictures` usable pictures; those that cannot be used are counted."""
    if folder is None:
        product.num_pictures = len(names)
        product.broken_pictures = [str(Reason.UNREACHABLE_PICTURE)] * len(names)
        return
    for name in names[:_MAX_TRIES]:
        if len(product.pictures) == config.max_pictures:
            return
        product.num_pictures += 1
        try:
            product.pictures.append(folder.read(name))
        except PictureError as error:
            product.broken_pictures.append(str(error.reason))
