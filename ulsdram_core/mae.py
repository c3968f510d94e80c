"""The MAE benchmark's JSON item: texts, picture paths and specs of one product."""

from collections.abc import Mapping
from dataclasses import dataclass

from ulsdram_core.errors import UlsdramError
from ulsdram_core.reasons import Reason

# Ours -> theirs; the clean_ keys hold the same text tokenised and lower-cased.
SOURCES = {"title": "title", "description": "text"}


class MaeError(UlsdramError):
    """An item that cannot be read at all."""


@dataclass(frozen=True, slots=True)
class MaeItem:
    """One product; `reasons` say what the item lacked.

    `product_id` is None without a diffbotUri; `texts` maps source to text, missing ones left
    out; `pictures` are paths relative to the benchmark's mumie-img folder; a spec with several
    values is several pairs.
    """

    product_id: str | None
    texts: dict[str, str]
    pictures: tuple[str, ...]
    specs: tuple[tuple[str, str], ...]
    reasons: tuple[Reason, ...]


def parse_mae_item(item: object, *, clean: bool = False) -> MaeItem:
    """Read one JSON value; keys may be missing or null, anything but an object is a MaeError.

    `clean` takes clean_title and clean_text where they are given.
    """
    if not isinstance(item, Mapping):
        raise MaeError(f"found a {type(item).__name__}, expected a JSON object with a title")
    reasons: list[Reason] = []
    uri = _text(item, "diffbotUri", reasons)
    texts = {}
    for source, key in SOURCES.items():
        text = (_text(item, f"clean_{key}", reasons) if clean else "") or _text(item, key, reasons)
        if text:
            texts[source] = text
    pictures = _pictures(item.get("images"), reasons)
    specs = _specs(item.get("specs"), reasons)
    lacking = ((uri, Reason.NULL_ID), (texts, Reason.EMPTY_TEXT), (pictures, Reason.NO_PICTURE))
    reasons += [reason for found, reason in lacking if not found]
    return MaeItem(uri or None, texts, pictures, specs, tuple(dict.fromkeys(reasons)))


def _text(item: Mapping[str, object], key: str, reasons: list[Reason]) -> str:
    """The key's text; '' where it is missing or blank."""
    found = item.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        reasons.append(Reason.WRONG_TYPE)
        return ""
    return found if found.strip() else ""


def _pictures(found: object, reasons: list[Reason]) -> tuple[str, ...]:
    if found is None:
        return ()
    paths = [found] if isinstance(found, str) else found
    if not isinstance(paths, list):
        reasons.append(Reason.WRONG_TYPE)
        return ()
    kept = tuple(path for path in paths if isinstance(path, str) and path)
    if len(kept) < len(paths):
        reasons.append(Reason.WRONG_TYPE)
    return kept


def _specs(found: object, reasons: list[Reason]) -> tuple[tuple[str, str], ...]:
    """(attribute, value) pairs in the item's order; numbers become text, blank ones are skipped."""
    if found is None:
        return ()
    if not isinstance(found, Mapping):
        reasons.append(Reason.WRONG_TYPE)
        return ()
    pairs: list[tuple[str, str]] = []
    for attribute, given in found.items():
        for value in given if isinstance(given, list) else [given]:
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                if value is not None:
                    reasons.append(Reason.WRONG_TYPE)
            elif str(value).strip() and str(attribute).strip():
                pairs.append((str(attribute).strip(), str(value).strip()))
    return tuple(dict.fromkeys(pairs))
