"""What a run through Ray has written: when its rows were done, and which spans it found."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from speed.agreement import Span

from pipelines.lake.tables import EXTRACTIONS


@dataclass(frozen=True)
class Output:
    """`finished`: for each row, when the worker had its batch done, in seconds; `workers`: how
    many worked, None where rows do not say.

    `scores` are the attributes' scores alone, as the released code gives them for confidences.
    """

    products: frozenset[str]
    finished: Sequence[float]
    confidences: dict[Span, float]
    scores: dict[Span, float]
    workers: int | None = None

    def of(self, products: frozenset[str]) -> "Output":
        """The spans of some products only."""
        return Output(
            products,
            self.finished,
            {span: value for span, value in self.confidences.items() if span[0] in products},
            {span: value for span, value in self.scores.items() if span[0] in products},
            self.workers,
        )


def steady_rate(finished: Iterable[float], workers: int) -> float | None:
    """Rows a second once every worker can have done a batch, until the last row.

    Workers often run in step: counting from the very first batch would add the first batches of
    all other workers without the time that they took, the more so the fewer batches a run has.
    None where too few batches are left.
    """
    stamps = sorted(finished)
    batches = sorted(set(stamps))
    if len(batches) < 2 * workers:
        return None
    first, last = batches[workers - 1], batches[-1]
    return sum(stamp > first for stamp in stamps) / (last - first)


def nightly_output(table: Path) -> Output:
    """Of the extractions table."""
    frame = pl.scan_delta(str(table / EXTRACTIONS)).collect()
    confidences: dict[Span, float] = {}
    scores: dict[Span, float] = {}
    for key, values, found in frame.select("product_id", "values", "range").iter_rows():
        score = {item["attribute"]: item["score"] for item in found or ()}
        for value in values or ():
            name = value["attribute"]
            span = (key, name, value["source"], value["start"], value["end"])
            confidences[span], scores[span] = value["confidence"], score[name]
    stamps = [moment.timestamp() for moment in frame["extracted_at"]]
    return Output(frozenset(frame["product_id"]), stamps, confidences, scores)


def peer_output(folder: Path) -> Output:
    """Of the Parquet files of a peer; it has one kind of confidence."""
    frame = pl.read_parquet(f"{folder}/**/*.parquet")
    if "found" in frame.columns:
        frame = frame.unnest("found")
    spans: dict[Span, float] = {
        (str(key), attribute, source, start, end): confidence
        for key, values in frame.select("product_id", "values").iter_rows()
        for attribute, _, source, start, end, confidence in json.loads(values)
    }
    products = frozenset(map(str, frame["product_id"]))
    stamps = frame["finished"].to_list()
    return Output(products, stamps, spans, spans, frame["worker"].n_unique())
