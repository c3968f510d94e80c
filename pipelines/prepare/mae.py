"""MAE: JSON files, each a list of items with texts, picture paths and `specs`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.pictures import PictureFolder
from pipelines.prepare.rows import (
    Problem,
    RawProduct,
    RowError,
    check_name,
    check_texts,
    match_specs,
    specs_of,
)
from pipelines.prepare.shards import Shard
from ulsdram_core.errors import PictureError
from ulsdram_core.reasons import Reason

# An item that names thousands of broken pictures must not hold up the rest.
_MAX_TRIES = 100


def read_mae(shard: Shard, config: PrepareConfig) -> Iterator[RawProduct | Problem | None]:
    """Yield products of one JSON file; a problem's line is the item's place in the list, from 1."""
    folder = PictureFolder.of(config)
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
    parsed = parse_mae_item(item)
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
    if parsed.is_mistyped:
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


# Ours -> theirs; their clean_ keys hold the same text tokenised and lower-cased.
SOURCES = {"title": "title", "description": "text"}


@dataclass(frozen=True, slots=True)
class MaeItem:
    """One product; `is_mistyped` where something of another type was left out.

    `product_id` is None without a diffbotUri; `texts` maps source to text, missing ones left
    out; `pictures` are paths relative to the benchmark's mumie-img folder; a spec with several
    values is several pairs.
    """

    product_id: str | None
    texts: dict[str, str]
    pictures: tuple[str, ...]
    specs: tuple[tuple[str, str], ...]
    is_mistyped: bool


def parse_mae_item(item: object) -> MaeItem:
    """Read one JSON value; keys may be missing or null, anything but an object is a RowError."""
    if not isinstance(item, Mapping):
        detail = f"found a {type(item).__name__}, expected a JSON object with a title"
        raise RowError(Reason.WRONG_TYPE, detail)
    problems: list[Reason] = []
    uri = _text(item, "diffbotUri", problems)
    texts = {source: _text(item, key, problems) for source, key in SOURCES.items()}
    texts = {source: text for source, text in texts.items() if text}
    pictures = _pictures(item.get("images"), problems)
    specs = _specs(item.get("specs"), problems)
    return MaeItem(uri or None, texts, pictures, specs, bool(problems))


def _text(item: Mapping[str, object], key: str, problems: list[Reason]) -> str:
    """Return the key's text; '' where it is missing or blank."""
    found = item.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        problems.append(Reason.WRONG_TYPE)
        return ""
    return found if found.strip() else ""


def _pictures(found: object, problems: list[Reason]) -> tuple[str, ...]:
    if found is None:
        return ()
    paths = [found] if isinstance(found, str) else found
    if not isinstance(paths, list):
        problems.append(Reason.WRONG_TYPE)
        return ()
    kept = tuple(path for path in paths if isinstance(path, str) and path)
    if len(kept) < len(paths):
        problems.append(Reason.WRONG_TYPE)
    return kept


def _specs(found: object, problems: list[Reason]) -> tuple[tuple[str, str], ...]:
    """Return (attribute, value) pairs in order; numbers become text, blank ones are skipped."""
    if found is None:
        return ()
    if not isinstance(found, Mapping):
        problems.append(Reason.WRONG_TYPE)
        return ()
    pairs: list[tuple[str, str]] = []
    for attribute, given in found.items():
        for value in given if isinstance(given, list) else [given]:
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                if value is not None:
                    problems.append(Reason.WRONG_TYPE)
            elif str(value).strip() and str(attribute).strip():
                pairs.append((str(attribute).strip(), str(value).strip()))
    return tuple(dict.fromkeys(pairs))
