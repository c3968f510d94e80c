"""From tag scores to values: spans, confidences, the attribute range.

Axes: B windows, C attributes, N rows (pairs, or windows without a policy), U units.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ulsdram_core.labels import batch_class_spans_from_tags
from ulsdram_core.method.crf import TagSpans
from ulsdram_core.method.model import ModelOutput
from ulsdram_core.method.tagger import Tagger
from ulsdram_core.schema import Value
from ulsdram_core.text import Window


@dataclass(frozen=True)
class WindowSpans:
    """Spans found in a batch of windows, as aligned arrays; units count within the window."""

    window: np.ndarray
    attribute: np.ndarray
    start: np.ndarray
    end: np.ndarray
    confidence: np.ndarray

    def within(self, allowed_BC: np.ndarray) -> "WindowSpans":
        """Keep the spans of attributes that their windows' products may have."""
        kept = allowed_BC[self.window, self.attribute]
        return WindowSpans(*(getattr(self, f.name)[kept] for f in fields(self)))


def decode_spans(tagger: Tagger, output: ModelOutput, unit_source_BU: np.ndarray) -> WindowSpans:
    """Decode the best tags, and give each span P(exactly this span) x its attribute's score."""
    num_rows = len(output.emissions_NUT)
    window_N = np.arange(num_rows)
    if output.pairs is not None:
        window_N = output.pairs.window_N.cpu().numpy()
    row, attribute, start, end = batch_class_spans_from_tags(
        tagger.decode(output.emissions_NUT, output.mask_NU).cpu().numpy(),
        output.mask_NU.sum(1).cpu().numpy(),
        unit_source_BU[window_N],
    )
    window = window_N[row]
    begin = 1 + 2 * attribute  # of the row's own tags: 1 where rows are pairs
    if output.pairs is not None:
        attribute = output.pairs.attribute_N.cpu().numpy()[row]
    device = output.emissions_NUT.device
    columns = (row, start, end, begin, begin + 1)
    spans = TagSpans(*(torch.as_tensor(column, device=device) for column in columns))
    log_prob = tagger.span_log_prob(output.emissions_NUT, spans, output.mask_NU)
    confidence = log_prob.exp().float().cpu().numpy()
    if output.logits_BC is not None:
        scores_BC = torch.sigmoid(output.logits_BC.float()).cpu().numpy()
        confidence = confidence * scores_BC[window, attribute]
    return WindowSpans(window, attribute, start, end, confidence)


def spans_to_values(
    spans: WindowSpans,
    windows: Sequence[Window],
    texts: Sequence[Mapping[str, str]],
    *,
    sources: Sequence[str],
    attributes: Sequence[str],
) -> list[list[Value]]:
    """Return each window's values; a span counts in the window that owns its first unit.

    windows: of the batch; texts: each window's product's texts.
    """
    found: list[list[Value]] = [[] for _ in windows]
    columns = (spans.window, spans.attribute, spans.start, spans.end, spans.confidence)
    for place, attribute, first, end, confidence in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        window = windows[place]
        lower, upper = window.owned
        if lower <= window.first_unit + first < upper:
            source = sources[window.unit_source[first]]
            start, stop = int(window.unit_start[first]), int(window.unit_end[end - 1])
            text = texts[place][source][start:stop]
            name = attributes[attribute]
            found[place].append(Value(name, text, source, start, stop, confidence))
    return found


def merge_repeats(values: Sequence[Value]) -> tuple[Value, ...]:
    """Keep one value per attribute and text (case ignored): the most confident, else first.

    The order stays.
    """
    best: dict[tuple[str, str], int] = {}
    for place, value in enumerate(values):
        known = best.setdefault((value.attribute, value.value.casefold()), place)
        if value.confidence > values[known].confidence:
            best[value.attribute, value.value.casefold()] = place
    return tuple(values[place] for place in sorted(best.values()))


def keep_single(values: Sequence[Value], single: Set[str]) -> tuple[Value, ...]:
    """Keep, of each attribute in `single`, the most confident text (case ignored), else the first.

    All its mentions stay, and so does the order.
    """
    best: dict[str, Value] = {}
    for value in values:
        if value.confidence > best.setdefault(value.attribute, value).confidence:
            best[value.attribute] = value
    return tuple(
        value
        for value in values
        if value.attribute not in single
        or value.value.casefold() == best[value.attribute].value.casefold()
    )


def range_scores(logits_BC: Tensor, chosen_BC: Tensor) -> list[list[tuple[int, float]]]:
    """Return each window's range: (attribute, score), best first."""
    scores = torch.sigmoid(logits_BC.float()).cpu().numpy()
    chosen = chosen_BC.cpu().numpy()
    ranges = []
    for row in range(len(scores)):
        inside = np.flatnonzero(chosen[row])
        order = inside[np.argsort(-scores[row, inside], kind="stable")]
        ranges.append([(int(a), float(scores[row, a])) for a in order])
    return ranges
