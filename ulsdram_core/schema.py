"""What goes into an Extractor and what comes out: products, values, extractions."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ulsdram_core.reasons import Reason

SCHEMA_VERSION = 1


class Status(StrEnum):
    """How a product fared; see the `status` column of the extractions table."""

    OK = "ok"
    DEGRADED = "degraded"
    QUARANTINED = "quarantined"
    VANISHED = "vanished"


class Evidence(StrEnum):
    """What an inferred value rests on: which of picture and text would do alone."""

    PICTURE = "picture"
    TEXT = "text"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class GoldSpan:
    """One annotated value: half-open character span in the text column `source`."""

    attribute: str
    value: str
    start: int
    end: int
    source: str = "title"

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(
                f"gold span of {self.attribute!r} is [{self.start}, {self.end}), "
                "expected 0 <= start < end; correct the offsets"
            )


@dataclass(frozen=True, slots=True)
class Product:
    """One row of the products table.

    `texts` maps source to raw text, in encoding order; `pictures` are encoded bytes;
    `gold` is None where the product is not labelled and () where it has no value;
    `specs` are its (attribute, value), wherever they are written or not.
    """

    product_id: str
    texts: Mapping[str, str]
    pictures: tuple[bytes, ...] = ()
    category: str | None = None
    gold: tuple[GoldSpan, ...] | None = None
    specs: tuple[tuple[str, str], ...] = ()

    def gold_for(self, source: str) -> tuple[GoldSpan, ...]:
        """Return gold spans in one text column; () also where the product is not labelled."""
        return tuple(span for span in self.gold or () if span.source == source)

    def gold_attributes(self) -> tuple[str, ...]:
        """Return attributes with at least one gold span, each once, in order of appearance."""
        return tuple(dict.fromkeys(span.attribute for span in self.gold or ()))


@dataclass(frozen=True, slots=True)
class DecodedProduct:
    """A product ready for a model; pictures are uint8 [S, S, 3], equal ones the same array."""

    product_id: str
    texts: Mapping[str, str]
    pictures: tuple[np.ndarray, ...] = ()
    category: str | None = None
    reason: Reason | None = None
    """Why no picture is usable, if none is."""


@dataclass(frozen=True, slots=True)
class Value:
    """One extracted value; `start, end` are half-open character offsets in `source`."""

    attribute: str
    value: str
    source: str
    start: int
    end: int
    confidence: float
    normalized: str | None = None


@dataclass(frozen=True, slots=True)
class InferredValue:
    """One value that need not stand in any text; `value` is one of those seen in training."""

    attribute: str
    value: str
    confidence: float
    evidence: Evidence
    falls: bool | None = None
    """Whether confidence falls when the pictures are taken away; None: there are none."""


@dataclass(frozen=True, slots=True)
class AttributeScore:
    """Score in [0, 1] of one attribute in a product's range."""

    attribute: str
    score: float


@dataclass(frozen=True, slots=True)
class Extraction:
    """What one product yields; `reason` is None exactly when `status` is ok or vanished."""

    product_id: str
    status: Status
    reason: Reason | None = None
    values: tuple[Value, ...] = ()
    range: tuple[AttributeScore, ...] = ()
    inferred: tuple[InferredValue, ...] = ()
