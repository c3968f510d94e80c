"""`target_scores` of OA-Mine and WDC-PAVE: {attribute: {value: score or {pid, score}}}."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.prepare.matching import match_specs
from pipelines.prepare.rows import RowError, Specs, check_name
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import GoldSpan

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
    """Spans by MAE's rule, each value only in the texts that its `pid` numbers name.

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
