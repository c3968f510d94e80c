"""The attributes a model knows, gold spans on a product's units, and BIO tags.

A tag row for one (product window, attribute) pair holds O, B, I. A multi-class row holds O = 0,
B of attribute a = 1 + 2a and I = 2 + 2a. Tags are read as seqeval does by default: an I that
continues nothing opens a span. No span crosses from one source to the next.
"""

# A attributes, N tag rows, U units of a window

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from ulsdram_core.errors import LabelError
from ulsdram_core.frozen import Frozen
from ulsdram_core.schema import GoldSpan, Product
from ulsdram_core.text import UnitKind, Window, find_units, product_units

O, B, I = 0, 1, 2  # noqa: E741
SINGLE_SUPPORT = 100
"""Products from which on it is believed that an attribute has one value only."""
SINGLE_SLACK = 0.001
"""Share of products in which gold may be wrong about that."""


class LabelSet(Frozen):
    """Attributes in the order of the model's outputs."""

    attributes: tuple[str, ...] = Field(min_length=1, description="Attribute names, unique.")
    category_attributes: dict[str, tuple[str, ...]] | None = Field(
        None, description="Attributes seen with each category; None: not told apart."
    )
    single: tuple[str, ...] = Field(
        (), description="Attributes of which a product has one value, however often it is named."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        repeated = [name for name, count in Counter(self.attributes).items() if count > 1]
        if repeated or "" in self.attributes:
            raise ValueError(f"attributes repeat {repeated} or are empty; name each one once")
        known = set(self.attributes)
        for category, names in (self.category_attributes or {}).items():
            if unknown := sorted(set(names) - known):
                raise ValueError(f"category {category!r} names {unknown}, not in attributes")
        if unknown := sorted(set(self.single) - known):
            raise ValueError(f"single names {unknown}, not in attributes")
        return self

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.attributes)}

    def __len__(self) -> int:
        return len(self.attributes)

    def __contains__(self, attribute: str) -> bool:
        return attribute in self._numbers

    def index(self, attribute: str) -> int:
        """Return the attribute's number; LabelError for one that the set does not hold."""
        number = self._numbers.get(attribute)
        if number is None:
            raise LabelError(
                f"attribute {attribute!r} is not among the {len(self)} labels; "
                "train on data that holds it"
            )
        return number

    def allowed(self, category: str | None) -> np.ndarray:
        """Return bool[A]: attributes seen with the category; all for a category never seen."""
        names = (self.category_attributes or {}).get(category or "")
        if names is None:
            return np.ones(len(self), dtype=bool)
        mask = np.zeros(len(self), dtype=bool)
        mask[[self.index(name) for name in names]] = True
        return mask

    @classmethod
    def from_products(
        cls,
        products: Iterable[Product],
        *,
        min_count: int = 1,
        with_categories: bool = False,
        with_single: bool = False,
    ) -> "LabelSet":
        """Learn the attributes of at least `min_count` products, most frequent first, then by name.

        `with_categories` also learns which attributes occur with which category, `with_single`
        which ones have one value only.
        """
        counts: Counter[str] = Counter()
        many: Counter[str] = Counter()
        seen: dict[str, set[str]] = {}
        for product in products:
            names = product.gold_attributes()
            counts.update(names)
            values = {(span.attribute, span.value.casefold()) for span in product.gold or ()}
            several = Counter(name for name, _ in values)
            many.update(name for name, count in several.items() if count > 1)
            if product.category is not None:
                seen.setdefault(product.category, set()).update(names)
        order = sorted(counts, key=lambda name: (-counts[name], name))
        kept = tuple(name for name in order if counts[name] >= min_count)
        if not kept:
            raise LabelError(
                f"found {len(counts)} annotated attributes, none in {min_count} or more products; "
                "give labelled products or lower min_count"
            )
        categories = {
            category: tuple(name for name in kept if name in seen[category])
            for category in sorted(seen)
        }
        single = (
            name
            for name in kept
            if counts[name] >= SINGLE_SUPPORT and many[name] <= SINGLE_SLACK * counts[name]
        )
        return cls(
            attributes=kept,
            category_attributes=categories if with_categories else None,
            single=tuple(single) if with_single else (),
        )


@dataclass(frozen=True, slots=True)
class AlignedSpan:
    """A gold span in half-open unit numbers of the product; `attribute` is its label number."""

    attribute: int
    start_unit: int
    end_unit: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """Gold on units, in gold's order, and how much of it did not fit exactly.

    `num_snapped` spans were kept, but cover more or fewer characters than annotated (they cut a
    unit, begin or end in white space, or run past the text). Dropped are `num_unknown` (attribute
    not in the labels), `num_outside` (no unit there, or a source that is not read) and
    `num_overlapping` (over another span of the same attribute: one B I O row holds only one).
    """

    spans: tuple[AlignedSpan, ...]
    num_snapped: int = 0
    num_unknown: int = 0
    num_outside: int = 0
    num_overlapping: int = 0

    def seen_by(self, window: Window) -> tuple[AlignedSpan, ...]:
        """Return spans with at least one unit in the window."""
        last = window.first_unit + window.num_units
        return tuple(
            span
            for span in self.spans
            if span.start_unit < last and span.end_unit > window.first_unit
        )


def align_gold(
    windows: Sequence[Window],
    gold: Iterable[GoldSpan],
    labels: LabelSet,
    sources: Sequence[str] = ("title",),
) -> Alignment:
    """Return gold spans in the product's units; `sources` are the TextConfig's.

    A span that cuts through a unit grows to take all of it. Of overlapping spans of one
    attribute the one that starts first stays, of those the longest.
    """
    numbers = {source: number for number, source in enumerate(sources)}
    unit_source, unit_start, unit_end = product_units(windows)
    bounds = np.searchsorted(unit_source, np.arange(len(sources) + 1)).tolist()
    starts, ends = unit_start.tolist(), unit_end.tolist()
    counts: Counter[str] = Counter()
    found: dict[AlignedSpan, None] = {}
    for span in gold:
        if span.attribute not in labels:
            counts["unknown"] += 1
            continue
        number = numbers.get(span.source)
        low, high = (0, 0) if number is None else bounds[number : number + 2]
        first = bisect_right(ends, span.start, low, high)
        last = bisect_left(starts, span.end, low, high)
        if first >= last:
            counts["outside"] += 1
            continue
        exact = starts[first] == span.start and ends[last - 1] == span.end
        counts["snapped"] += not exact
        found[AlignedSpan(labels.index(span.attribute), first, last)] = None
    kept = _without_overlaps(list(found))
    return Alignment(
        spans=kept,
        num_snapped=counts["snapped"],
        num_unknown=counts["unknown"],
        num_outside=counts["outside"],
        num_overlapping=len(found) - len(kept),
    )


def _without_overlaps(spans: list[AlignedSpan]) -> tuple[AlignedSpan, ...]:
    """Return the given order, less spans over an earlier or longer one of the same attribute."""
    reached: dict[int, int] = {}
    kept = set()
    for span in sorted(spans, key=lambda span: (span.start_unit, -span.end_unit)):
        if span.start_unit >= reached.get(span.attribute, 0):
            reached[span.attribute] = span.end_unit
            kept.add(span)
    return tuple(span for span in spans if span in kept)


def pair_tags(spans: Iterable[AlignedSpan], window: Window) -> np.ndarray:
    """Return O, B, I of the given spans (all of one attribute): int64[U].

    It is the window's slice of the product's own tags: a span that began before the window
    goes on as I. Such units lie left of what the window owns, unless the span is longer than
    the overlap.
    """
    return _paint([(span, B, I) for span in spans], window)


def class_tags(spans: Iterable[AlignedSpan], window: Window) -> np.ndarray:
    """Return multi-class tags of all spans: int64[U]; a later span overwrites an earlier one."""
    return _paint(
        [(span, B + 2 * span.attribute, I + 2 * span.attribute) for span in spans], window
    )


def _paint(spans: list[tuple[AlignedSpan, int, int]], window: Window) -> np.ndarray:
    tags_U = np.full(window.num_units, O, dtype=np.int64)
    for span, begin, inside in spans:
        first, end = span.start_unit - window.first_unit, span.end_unit - window.first_unit
        tags_U[max(first, 0) : max(end, 0)] = inside
        if 0 <= first < len(tags_U):
            tags_U[first] = begin
    return tags_U


def batch_class_spans_from_tags(
    tags_NU: np.ndarray,
    lengths_N: np.ndarray | None = None,
    sources_NU: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, attribute, start, end) of padded rows of multi-class tags, by row and start.

    There is no loop over rows. `lengths_N` counts each row's units (default: all U), what lies
    beyond is padding; `sources_NU` is each unit's source (default: one source).
    """
    tags_NU = np.asarray(tags_NU)
    num_rows, num_units = tags_NU.shape
    inside_NU = tags_NU > O
    if lengths_N is not None:
        inside_NU &= np.arange(num_units) < np.asarray(lengths_N)[:, None]
    attribute_NU = (tags_NU - 1) // 2
    # Where a unit continues its left neighbour's span: both of one attribute, and it is an I.
    joined = inside_NU[:, 1:] & inside_NU[:, :-1] & (tags_NU[:, 1:] % 2 == 0)
    joined &= attribute_NU[:, 1:] == attribute_NU[:, :-1]
    if sources_NU is not None:
        joined &= sources_NU[:, 1:] == sources_NU[:, :-1]
    edge = np.zeros((num_rows, min(num_units, 1)), dtype=bool)
    opens_NU = inside_NU & ~np.concatenate((edge, joined), axis=1)
    closes_NU = inside_NU & ~np.concatenate((joined, edge), axis=1)
    rows, starts = np.nonzero(opens_NU)
    return rows, attribute_NU[rows, starts], starts, np.nonzero(closes_NU)[1] + 1


@dataclass(frozen=True, slots=True)
class Matches:
    """Where values occur in texts; `missing` are the (attribute, value) pairs found in none."""

    spans: tuple[GoldSpan, ...]
    missing: tuple[tuple[str, str], ...]


def match_texts(
    texts: Mapping[str, str],
    specs: Iterable[tuple[str, str]],
    *,
    overwrite: bool = False,
    unit: UnitKind = "word",
) -> Matches:
    """Find every occurrence of each value's units in each text, in any case: MAE's rule.

    `texts` maps source to text. Spans of different attributes may overlap. With `overwrite`, as in
    the released code, later specs overwrite earlier ones unit by unit; what is left of an
    overwritten span is a span.
    """
    specs = list(dict.fromkeys(specs))
    spans: list[GoldSpan] = []
    found: set[int] = set()
    for source, text in texts.items():
        units = find_units(text, unit)
        matches = _occurrences(text, units, specs, unit)
        found.update(number for number, _, _ in matches)
        if overwrite:
            matches = _overwritten(matches, specs, len(units))
        for number, first, last in matches:
            start, end = units[first][0], units[last - 1][1]
            spans.append(GoldSpan(specs[number][0], text[start:end], start, end, source))
    missing = tuple(spec for number, spec in enumerate(specs) if number not in found)
    return Matches(tuple(dict.fromkeys(spans)), missing)


def _occurrences(
    text: str, units: list[tuple[int, int]], specs: list[tuple[str, str]], unit: UnitKind
) -> list[tuple[int, int, int]]:
    """Return (spec number, first unit, end unit) of each match; one value's do not overlap."""
    words = [text[start:end].lower() for start, end in units]
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word, []).append(place)
    found = []
    for number, (_, value) in enumerate(specs):
        sought = [value[start:end].lower() for start, end in find_units(value, unit)]
        reached = 0
        for place in places.get(sought[0], ()) if sought else ():
            end = place + len(sought)
            if place >= reached and words[place:end] == sought:
                found.append((number, place, end))
                reached = end
    return found


def _overwritten(
    found: list[tuple[int, int, int]], specs: list[tuple[str, str]], num_units: int
) -> list[tuple[int, int, int]]:
    """Return the matches left after each is painted over the earlier ones, in order of place."""
    owner: list[int | None] = [None] * num_units
    begins = [False] * num_units
    for number, first, last in found:
        owner[first:last] = [number] * (last - first)
        begins[first:last] = [True] + [False] * (last - first - 1)
    left: list[tuple[int, int, int]] = []
    for place, spec in enumerate(owner):
        if spec is None:
            continue
        previous = owner[place - 1] if place else None
        goes_on = previous is not None and specs[previous][0] == specs[spec][0]
        if goes_on and not begins[place]:
            left[-1] = (left[-1][0], left[-1][1], place + 1)
        else:
            left.append((spec, place, place + 1))
    return left
