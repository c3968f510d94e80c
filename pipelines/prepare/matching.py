"""MAE's matching rule, with a bound on what untrusted values may cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ulsdram_core.labels import Matches, match_texts

# Comparing costs (places in the text) x (words of the value); nobody tags longer values.
MAX_VALUE_CHARS = 300


def match_specs(texts: Mapping[str, str], specs: Iterable[tuple[str, str]]) -> Matches:
    """`match_texts`; a value of more than 300 characters counts as missing from every text."""
    given = list(dict.fromkeys(specs))
    matches = match_texts(texts, [spec for spec in given if len(spec[1]) <= MAX_VALUE_CHARS])
    too_long = [spec for spec in given if len(spec[1]) > MAX_VALUE_CHARS]
    return Matches(matches.spans, (*matches.missing, *too_long))
