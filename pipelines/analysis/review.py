"""The review queue: the least certain values out as CSV, the reviewers' decisions back in.

The queue has one row per value: `product_id, attribute, value, confidence, context, correct,
right_value, key`. A reviewer fills `correct` (yes or no) and, for a wrong value, `right_value`
(empty: the product has no value there). `key` says which value the row is about even if the
spreadsheet turned the id 007 into 7. Decisions become the corrections table that training reads.
"""

import base64
import binascii
import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from pipelines.analysis.results import ResultTable
from pipelines.analysis.spreadsheet import neutralize, restore
from pipelines.labelled.decisions import Decision, ReviewError, parse_decision
from pipelines.lake.catalog import Catalog
from pipelines.lake.frames import collect
from pipelines.lake.storage import Storage

QUEUE_COLUMNS = (
    "product_id", "attribute", "value", "confidence", "context", "correct", "right_value", "key",
)  # fmt: skip
CORRECTIONS_SCHEMA = {
    "product_id": pl.String,
    "attribute": pl.String,
    "value": pl.String,
    "correct": pl.Boolean,
    "right_value": pl.String,
}
IDENTITY = ("product_id", "attribute", "value")

_CONTEXT_CHARS = 40


@dataclass(frozen=True, slots=True)
class ReviewedFile:
    """What one reviewed file held; `num_restored` rows had been altered by the spreadsheet."""

    decisions: tuple[Decision, ...]
    num_undecided: int = 0
    num_restored: int = 0


def least_certain(
    table: ResultTable,
    *,
    limit: int = 200,
    per_attribute: int | None = None,
    threshold: float = 1.01,
    decided: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Return the values to review, least certain first, each (product, attribute, value) once.

    `decided` (a corrections table) takes out what was reviewed before; `per_attribute` keeps one
    noisy attribute from filling the queue. Fewer may come where products repeat a value.
    """
    wanted = [*IDENTITY, "source", "start", "end", "confidence"]
    order = ["confidence", *IDENTITY, "start"]
    values = table.long().filter(pl.col("confidence") < threshold).select(wanted)
    if decided is not None:
        values = values.join(decided.lazy().select(IDENTITY), on=IDENTITY, how="anti")
    # twice as many, because the same value may stand twice in a product
    if per_attribute is None:
        values = values.sort(order).head(2 * limit)
    else:
        least = pl.col("confidence").bottom_k(2 * per_attribute).max()
        values = values.join(values.group_by("attribute").agg(least=least), on="attribute")
        values = values.filter(pl.col("confidence") <= pl.col("least")).drop("least")
    once = collect(values).sort(order).unique(IDENTITY, keep="first", maintain_order=True)
    if per_attribute is not None:
        once = once.filter(pl.int_range(pl.len()).over("attribute") < per_attribute)
    return once.head(limit)


def add_context(values: pl.DataFrame, catalog: Catalog | None) -> pl.DataFrame:
    """Return `values` with a `context` snippet, the value in [[ ]]; empty without the text."""
    if catalog is None or values.is_empty():
        return values.with_columns(context=pl.lit(""))
    texts = {
        row["product_id"]: row
        for row in collect(catalog.texts(values["product_id"])).iter_rows(named=True)
    }
    snippets = [
        snippet(
            texts.get(row["product_id"], {}).get(row["source"]),
            row["value"], start=row["start"], end=row["end"],
        )
        for row in values.iter_rows(named=True)
    ]  # fmt: skip
    return values.with_columns(context=pl.Series(snippets, dtype=pl.String))


def snippet(text: str | None, value: str, *, start: int, end: int) -> str:
    """Return the text around a span, one line; empty when the text changed since extraction."""
    if text is None or text[start:end] != value:
        return ""
    before = text[max(start - _CONTEXT_CHARS, 0) : start]
    after = text[end : end + _CONTEXT_CHARS]
    left = "..." if start > _CONTEXT_CHARS else ""
    right = "..." if end + _CONTEXT_CHARS < len(text) else ""
    return " ".join(f"{left}{before}[[{value}]]{after}{right}".split())


def export_queue(values: pl.DataFrame, out: Storage) -> int:
    """Write the queue as CSV (with a byte order mark, which spreadsheets need for UTF-8)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(QUEUE_COLUMNS)
    for row in values.iter_rows(named=True):
        cells = [row["product_id"], row["attribute"], row["value"]]
        key = encode_key(*cells)
        context = neutralize(row["context"])
        writer.writerow([*map(neutralize, cells), f"{row['confidence']:.4f}", context, "", "", key])
    out.write_bytes(buffer.getvalue().encode("utf-8-sig"))
    return values.height


def encode_key(product_id: str, attribute: str, value: str) -> str:
    """Return the row's identity in letters that no spreadsheet touches."""
    data = json.dumps([product_id, attribute, value], ensure_ascii=False).encode()
    return "k." + base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_key(key: str) -> tuple[str, str, str]:
    """Return the identity that `encode_key` was given."""
    try:
        data = base64.urlsafe_b64decode(key.removeprefix("k.") + "=" * (-(len(key) - 2) % 4))
        product_id, attribute, value = json.loads(data)
    except (ValueError, binascii.Error) as error:
        raise ReviewError(
            f"found key {key[:20]!r}, expected one as exported; clear the cell to use the columns"
        ) from error
    return product_id, attribute, value


def read_reviewed(place: Storage) -> ReviewedFile:
    """Read one reviewed CSV (comma, semicolon or tab; UTF-8)."""
    if not place.exists() or place.is_folder():
        raise ReviewError(f"found no file at {place.uri}, expected a reviewed CSV; check the path")
    try:
        text = place.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReviewError(
            f"found bytes that are not UTF-8 in {place.uri}; save it as CSV UTF-8"
        ) from error
    try:
        return parse_reviewed(text, name=place.name)
    except csv.Error as error:
        raise ReviewError(f"found no CSV in {place.uri} ({error}); save it as CSV UTF-8") from error


def parse_reviewed(text: str, *, name: str = "the reviewed file") -> ReviewedFile:
    """Return the decisions in a reviewed queue; a row without any answer waits."""
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    names = {_column(name): name for name in rows.fieldnames or ()}
    missing = [column for column in (*IDENTITY, "correct") if column not in names]
    if missing:
        raise ReviewError(
            f"{name} has no column {', '.join(missing)}; expected {', '.join(QUEUE_COLUMNS)}"
        )
    decisions, num_undecided, num_restored = [], 0, 0
    for number, raw in enumerate(rows, start=2):
        row = {column: restore(raw[given] or "") for column, given in names.items()}
        shown = (row["product_id"], row["attribute"], row["value"])
        where = f"{name} row {number}"
        try:
            identity = decode_key(row["key"].strip()) if row.get("key", "").strip() else shown
        except ReviewError as error:
            raise ReviewError(f"{where}: {error}") from error
        said, right = row["correct"].strip(), row.get("right_value", "").strip()
        decision = parse_decision(identity, said=said, right=right, where=where)
        num_restored += identity != shown
        num_undecided += decision is None
        decisions += [] if decision is None else [decision]
    return ReviewedFile(tuple(decisions), num_undecided, num_restored)


def _column(header: str) -> str:
    return header.strip().lower().rstrip("?").replace(" ", "_")


def merge_decisions(
    decisions: Iterable[Decision], *, known: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return the corrections table: new decisions override known ones, none contradict."""
    new: dict[tuple[str, str, str], Decision] = {}
    for decision in decisions:
        first = new.setdefault(decision.identity, decision)
        if first != decision:
            raise ReviewError(
                f"found two different decisions on {decision.identity}, expected one; "
                "settle it between the reviewers"
            )
    rows = [] if known is None else list(known.select(*CORRECTIONS_SCHEMA).iter_rows())
    merged = {row[:3]: row for row in rows if row[:3] not in new}
    merged |= {
        key: (*key, decision.is_correct, decision.right_value) for key, decision in new.items()
    }
    return pl.DataFrame(list(merged.values()), schema=CORRECTIONS_SCHEMA, orient="row").sort(
        IDENTITY
    )


def read_corrections_table(place: Storage) -> pl.DataFrame:
    """Return a corrections table that an import wrote."""
    try:
        frame = pl.read_parquet(io.BytesIO(place.read_bytes()))
        return frame.select(*CORRECTIONS_SCHEMA).cast(CORRECTIONS_SCHEMA)  # type: ignore[arg-type]
    except (FileNotFoundError, pl.exceptions.PolarsError) as error:
        raise ReviewError(
            f"found no corrections table at {place.uri} ({str(error).splitlines()[0]}), "
            "expected the Parquet file that an import wrote"
        ) from error


def write_corrections_table(corrections: pl.DataFrame, out: Storage) -> None:
    """Write the corrections table whole."""
    buffer = io.BytesIO()
    corrections.write_parquet(buffer)
    out.write_bytes(buffer.getvalue())
