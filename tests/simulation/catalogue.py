"""Inputs as plain Python, and what a table over them must hold: the model of the model checker."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq
from shop_catalogue import picture

GROUP_ROWS = 3
BROKEN = b"no Parquet at all"
_WORDS = {"red": "color", "blue": "color", "wool": "material", "cotton": "material"}
_SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("title", pa.string()),
        ("image", pa.binary()),
        ("updated_at", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Item:
    """One input row; `color` None: no picture, -1: a broken one."""

    id: str | None
    title: str
    color: int | None = 30
    updated_at: int | None = None

    def as_row(self) -> dict:
        image = None if self.color is None else picture(self.color) if self.color >= 0 else b"?"
        return {
            "product_id": self.id,
            "title": self.title,
            "image": image,
            "updated_at": self.updated_at,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What the table must hold of a product."""

    item: Item
    status: str
    reason: str | None
    values: tuple[tuple[str, str], ...]
    model: str

    def vanished(self) -> "Result":
        return replace(self, status="vanished", reason=None)


Files = dict[str, list[Item] | None]  # None: a broken file
Entry = tuple[str, int, int, str]  # file, row group, row, reason


@dataclass(slots=True)
class Tables:
    """Both tables as plain values."""

    rows: dict[str, Result] = field(default_factory=dict)
    entries: dict[Entry, str | None] = field(default_factory=dict)  # with the product's id

    def copy(self) -> "Tables":
        return Tables(dict(self.rows), dict(self.entries))


def parquet(items: Sequence[Item]) -> bytes:
    """An input file."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist([item.as_row() for item in items], schema=_SCHEMA)
    pq.write_table(table, sink, row_group_size=GROUP_ROWS)
    return sink.getvalue()


def result(item: Item, model: str) -> Result:
    """What the stand-in model makes of a row."""
    if not item.title.strip():
        return Result(item, "quarantined", "empty_text", (), model)
    words = [word.strip() for word in item.title.split()]
    values = tuple(sorted((_WORDS[word], word) for word in words if word in _WORDS))
    reason = {None: "no_picture", -1: "undecodable_picture"}.get(item.color)
    return Result(item, "degraded" if reason else "ok", reason, values, model)


def winners_and_losers(files: Files) -> tuple[dict[str, Item], dict[Entry, str | None]]:
    """The row that stands for each id, in input order, and the entries of all the others."""
    entries: dict[Entry, str | None] = {}
    best: dict[str, tuple[tuple[int, int], Item, Entry]] = {}
    order = 0
    for name in sorted(files):
        items = files[name]
        if items is None:
            entries[name, -1, -1, "unreadable_file"] = None
            continue
        for i, item in enumerate(items):
            order += 1
            key = (name, i // GROUP_ROWS, i % GROUP_ROWS)
            if item.id is None:
                entries[(*key, "null_id")] = None
                continue
            age = (-(item.updated_at if item.updated_at is not None else -1), order)
            challenger = (age, item, (*key, "duplicate_id"))
            known = best.get(item.id)
            if known is None:
                best[item.id] = challenger
                continue
            winner, loser = sorted((known, challenger), key=lambda found: found[0])
            best[item.id] = winner
            entries[loser[2]] = item.id
    ordered = sorted(best.items(), key=lambda found: found[1][0][1])
    return {name: item for name, (_, item, _) in ordered}, entries


def after_night(before: Tables, files: Files, model: str, *, is_full: bool = False) -> Tables:
    """The tables after a night without a limit was published."""
    del is_full  # the stand-in model says the same of the same row every time
    winners, entries = winners_and_losers(files)
    rows = {}
    for name, known in before.rows.items():
        is_gone = name not in winners and None not in files.values()
        rows[name] = known.vanished() if is_gone else known
    rows |= {name: result(item, model) for name, item in winners.items()}
    return Tables(rows, entries)


def changed_ids(before: Tables, files: Files, model: str, *, is_full: bool = False) -> list[str]:
    """Products that a night has to extract."""
    winners, _ = winners_and_losers(files)
    return [
        name
        for name, item in winners.items()
        if is_full
        or (known := before.rows.get(name)) is None
        or known.status == "vanished"
        or known.model != model
        or _content(known.item) != _content(item)
    ]


def _content(item: Item) -> tuple:
    return item.title, item.color


def after_limited(before: Tables, files: Files, model: str, extracted: Sequence[str]) -> Tables:
    """The tables after a night with a limit extracted these products."""
    winners, entries = winners_and_losers(files)
    rows = before.rows | {name: result(winners[name], model) for name in extracted}
    return Tables(rows, {key: name if name in rows else None for key, name in entries.items()})


def differences(found: Mapping, expected: Mapping) -> str:
    """The first few, for a message."""
    keys = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
    lines = [f"{key}: {found.get(key)} instead of {expected.get(key)}" for key in sorted(keys)[:4]]
    return f"{len(keys)} differ: " + "; ".join(lines) if keys else ""
