"""A product on its way from a raw format to a row of the products table."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ulsdram_core.labels import Matches, match_texts
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import GoldSpan
from ulsdram_core.text import is_unicode

Specs = list[tuple[str, str]]


class RowError(ValueError):
    """One row cannot be used; `reason` is the word it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = str(reason)

    def __reduce__(self) -> tuple[object, ...]:
        return RowError, (self.reason, str(self))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the input that could not be used; `num_rows` products are lost with it."""

    line: int
    reason: str
    detail: str
    num_rows: int = 1


@dataclass(slots=True)
class ReadSpecs:
    """Attribute values, and what is wrong with each of those that were left out."""

    specs: Specs = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, attribute: Any, value: Any) -> None:
        """Take a value, or say why not."""
        try:
            spec = check_name(attribute, "an attribute"), check_name(value, f"{attribute!r:.100}")
        except RowError as error:
            self.left_out.append(str(error))
            return
        if all(spec):
            self.specs.append(spec)

    def note(self, line: int) -> list[Problem]:
        """Return one problem for all that was left out, without loss of the row."""
        if not self.left_out:
            return []
        detail = f"{len(self.left_out)} values were left out; first: {self.left_out[0]}"
        return [Problem(line, Reason.WRONG_TYPE, detail, num_rows=0)]


@dataclass(slots=True)
class RawProduct:
    """A product as read: text exactly as given, spans made, pictures' bytes at hand."""

    line: int
    product_id: str
    texts: dict[str, str]
    gold: list[GoldSpan] = field(default_factory=list)
    specs: Specs = field(default_factory=list)
    outside: Specs = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    num_pictures: int = 0
    broken_pictures: list[str] = field(default_factory=list)
    category: str | None = None
    extra: dict[str, str | None] = field(default_factory=dict)
    notes: list[Problem] = field(default_factory=list)


def check_texts(texts: Mapping[str, Any], *, max_chars: int) -> dict[str, str]:
    """Return the texts as strings, unchanged; RowError where there is none or one is unusable."""
    checked = {source: _checked_text(source, text, max_chars) for source, text in texts.items()}
    if not any(text.strip() for text in checked.values()):
        raise RowError(Reason.EMPTY_TEXT, "no text")
    return checked


def check_name(name: Any, what: str) -> str:
    """Return an attribute name, a value or a key as a clean string."""
    if isinstance(name, bool) or not isinstance(name, str | int | float | Decimal):
        raise RowError(Reason.WRONG_TYPE, f"{what} is of type {type(name).__name__}")
    text = str(name).strip()
    if not is_unicode(text):
        raise RowError(Reason.INVALID_TEXT, f"{what} is not valid Unicode")
    return text


def specs_of(given: Any, *, max_values: int) -> ReadSpecs:
    """Return attribute values from a mapping, or a list of pairs or of {attribute, value}.

    A value that cannot be one, such as a nested object, is left out.
    """
    found = ReadSpecs()
    if given is None:
        return found
    pairs = given.items() if isinstance(given, Mapping) else given
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise RowError(Reason.WRONG_TYPE, f"specs are of type {type(given).__name__}")
    for pair in pairs:
        try:
            attribute, values = _pair(pair)
        except RowError as error:
            found.left_out.append(str(error))
            continue
        for value in values if isinstance(values, list | tuple) else [values]:
            if value is not None and value != "":
                found.add(attribute, value)
            if len(found.specs) > max_values:
                raise RowError("too_many_values", f"more than {max_values} attribute values")
    return found


def order_spans(spans: Iterable[GoldSpan], sources: Sequence[str]) -> list[GoldSpan]:
    """Return each span once, in reading order, of those with one start the longest first."""
    rank = {source: number for number, source in enumerate(sources)}
    return sorted(
        set(spans), key=lambda span: (rank[span.source], span.start, -span.end, span.attribute)
    )


def num_overlaps(spans: Iterable[GoldSpan]) -> int:
    """Return how many pairs of spans of one product share a character."""
    by_source: dict[str, list[tuple[int, int]]] = {}
    for span in spans:
        by_source.setdefault(span.source, []).append((span.start, span.end))
    total = 0
    for ranges in by_source.values():
        ranges.sort()
        starts = [start for start, _ in ranges]
        total += sum(
            bisect_left(starts, end) - number - 1 for number, (_, end) in enumerate(ranges)
        )
    return total


def _checked_text(source: str, text: Any, max_chars: int) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise RowError(Reason.WRONG_TYPE, f"{source} is of type {type(text).__name__}")
    if len(text) > max_chars:
        raise RowError(Reason.TEXT_TOO_LONG, f"{source} has {len(text)} characters")
    if not is_unicode(text):
        raise RowError(Reason.INVALID_TEXT, f"{source} is not valid Unicode")
    return text


def _pair(pair: Any) -> tuple[Any, Any]:
    if isinstance(pair, Mapping) and {"attribute", "value"} <= pair.keys():
        return pair["attribute"], pair["value"]
    if isinstance(pair, list | tuple) and len(pair) == 2:
        return pair[0], pair[1]
    raise RowError(Reason.WRONG_TYPE, "a spec is neither {attribute, value} nor a pair")


# Comparing costs (places in the text) x (words of the value); nobody tags longer values.
MAX_VALUE_CHARS = 300


def match_specs(texts: Mapping[str, str], specs: Iterable[tuple[str, str]]) -> Matches:
    """Match texts and values; one of more than 300 characters counts as missing everywhere."""
    given = list(dict.fromkeys(specs))
    matches = match_texts(texts, [spec for spec in given if len(spec[1]) <= MAX_VALUE_CHARS])
    too_long = [spec for spec in given if len(spec[1]) > MAX_VALUE_CHARS]
    return Matches(matches.spans, (*matches.missing, *too_long))
