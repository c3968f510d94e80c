"""Counts of a preparation; each shard counts its own and the driver adds them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, Field

from pipelines.prepare.rows import Problem, RawProduct, num_overlaps
from ulsdram_core.schema import GoldSpan

# A shard in which everything is broken must not send all of it to the driver.
_MAX_NOTES_PER_SHARD = 100
_MAX_DETAIL = 300


class Note(BaseModel):
    """One listed problem; `line` counts from 1 in its file (0: the file as a whole)."""

    file: str
    line: int
    reason: str
    detail: str


class AttributeTally(BaseModel):
    """How often an attribute is labelled, and how often its value is not in the text."""

    products: int = 0
    spans: int = 0
    outside_text: int = 0

    def add(self, other: AttributeTally) -> None:
        """Add another shard's counts."""
        self.products += other.products
        self.spans += other.spans
        self.outside_text += other.outside_text


class Tally(BaseModel):
    """Everything counted; all numbers add up over shards."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    blank_lines: int = 0
    lines: int = 0
    kept_by_split: dict[str, int] = Field(default_factory=dict)
    leaks: dict[str, int] = Field(default_factory=dict)
    without_picture: int = 0
    pictures_named: int = 0
    pictures_used: int = 0
    pictures_unusable: dict[str, int] = Field(default_factory=dict)
    values: int = 0
    values_outside_text: int = 0
    spans: int = 0
    overlapping_pairs: int = 0
    products_with_overlap: int = 0
    products_without_gold: int = 0
    corrections_applied: int = 0
    corrections_removed: int = 0
    corrections_added: int = 0
    corrections_outside_text: int = 0
    attributes: dict[str, AttributeTally] = Field(default_factory=dict)
    num_problems: int = 0
    notes: list[Note] = Field(default_factory=list)

    def add_problem(self, problem: Problem, *, file: str) -> None:
        """Count lost rows and list the problem while there is room."""
        if problem.num_rows:
            self.read += problem.num_rows
            _count(self.dropped, problem.reason, problem.num_rows)
        self.num_problems += 1
        if len(self.notes) < _MAX_NOTES_PER_SHARD:
            detail = " ".join(problem.detail.split())[:_MAX_DETAIL]
            note = Note(file=file, line=problem.line, reason=problem.reason, detail=detail)
            self.notes.append(note)

    def add_leak(self, split: str, *, is_dropped: bool) -> None:
        """Count a product whose title group another split has as well."""
        _count(self.leaks, split)
        if is_dropped:
            self.read += 1
            _count(self.dropped, "leak")

    def add_product(self, product: RawProduct, *, split: str, file: str) -> None:
        """Count a kept product."""
        self.read += 1
        self.kept += 1
        _count(self.kept_by_split, split)
        self.pictures_named += product.num_pictures
        self.pictures_used += len(product.pictures)
        self.without_picture += not product.pictures
        for reason in product.broken_pictures:
            _count(self.pictures_unusable, reason)
        for note in product.notes:
            self.add_problem(note, file=file)
        self._add_gold(product)

    def _add_gold(self, product: RawProduct) -> None:
        self.values += len(product.specs)
        self.values_outside_text += len(product.outside)
        self.spans += len(product.gold)
        overlaps = num_overlaps(product.gold)
        self.overlapping_pairs += overlaps
        self.products_with_overlap += overlaps > 0
        self.products_without_gold += not product.gold
        for span in product.gold:
            self._attribute(span.attribute).spans += 1
        for attribute in _attributes(product.gold):
            self._attribute(attribute).products += 1
        for attribute, _ in product.outside:
            self._attribute(attribute).outside_text += 1

    def merge(self, other: Tally, *, first_line: int = 0, max_notes: int = 1_000) -> None:
        """Add another tally, whose line numbers begin after `first_line`."""
        for name, value in other:
            if isinstance(value, int):
                setattr(self, name, getattr(self, name) + value)
        for name in ("dropped", "kept_by_split", "leaks", "pictures_unusable"):
            own: dict[str, int] = getattr(self, name)
            for key, count in getattr(other, name).items():
                _count(own, key, count)
        for attribute, counts in other.attributes.items():
            self._attribute(attribute).add(counts)
        for note in other.notes[: max_notes - len(self.notes)]:
            line = note.line + first_line if note.line else 0
            self.notes.append(note.model_copy(update={"line": line}))

    def _attribute(self, name: str) -> AttributeTally:
        return self.attributes.setdefault(name, AttributeTally())


def _attributes(spans: Iterable[GoldSpan]) -> set[str]:
    return {span.attribute for span in spans}


def _count(counts: dict[str, int], key: str, number: int = 1) -> None:
    counts[key] = counts.get(key, 0) + number


def most_frequent(attributes: Mapping[str, AttributeTally]) -> dict[str, AttributeTally]:
    """Return attributes by number of labelled products, then by name."""
    order = sorted(attributes, key=lambda name: (-attributes[name].products, name))
    return {name: attributes[name] for name in order}
