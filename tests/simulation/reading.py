"""What a world's tables and folders hold, read behind the product's back."""

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from simulation.catalogue import Entry, Item, Tables
from simulation.world import World, raw_file

Row = tuple[str, str | None, tuple[tuple[str, str], ...], str]


def read_rows(world: World) -> dict[str, Row]:
    """status, reason, values and model of every product; a product twice is an error."""
    frame = _read(world, "extractions")
    if frame is None:
        return {}
    assert frame["product_id"].is_unique().all(), "a product is there twice"
    found = {}
    for row in frame.iter_rows(named=True):
        values = tuple(sorted((v["attribute"], v["value"]) for v in row["values"]))
        model = row["model_id"].removeprefix("dictionary-")
        found[row["product_id"]] = (row["status"], row["reason"], values, model)
    return found


def read_entries(world: World) -> dict[Entry, str | None]:
    """The quarantine table; an entry twice is an error."""
    frame = _read(world, "quarantine")
    found: dict[Entry, str | None] = {}
    for row in () if frame is None else frame.iter_rows(named=True):
        key = (row["file"].rsplit("/", 1)[-1], row["row_group"], row["row"], row["reason"])
        assert key not in found, f"entry {key} is there twice"
        found[key] = row["product_id"]
    return found


def as_rows(tables: Tables) -> dict[str, Row]:
    """The model's rows as `read_rows` gives them."""
    return {k: (r.status, r.reason, r.values, r.model) for k, r in tables.rows.items()}


def _read(world: World, name: str) -> pl.DataFrame | None:
    place = raw_file(world.output.join(name))
    if not DeltaTable.is_deltatable(str(place)):
        return None
    delta = DeltaTable(str(place))
    paths = [place / path for path in delta.get_add_actions(flatten=True)["path"].to_pylist()]
    if not paths:
        return None
    return pl.concat([pl.DataFrame(pl.from_arrow(pq.ParquetFile(p).read())) for p in paths])


def orphans(world: World) -> list[str]:
    """What no clean night leaves behind, after a vacuum of 0 hours."""
    out = raw_file(world.output)
    found = [str(p.relative_to(out)) for p in out.rglob("*") if p.name.endswith(".tmp")]
    work = ("plan-", "staging", "attempts")
    for run in (out / "_runs").iterdir() if (out / "_runs").is_dir() else ():
        if run.is_dir() and not run.name.startswith("_"):
            found += [f"{run.name}/{p.name}" for p in run.iterdir() if p.name.startswith(work)]
    for name in ("extractions", "quarantine"):
        delta = DeltaTable(str(out / name))
        known = set(delta.get_add_actions(flatten=True)["path"].to_pylist())
        there = {str(p.relative_to(out / name)) for p in (out / name).rglob("*.parquet")}
        found += [p for p in sorted(there - known) if "_delta_log" not in p]
    return found


def places_of(world: World, needles: list[str]) -> list[str]:
    """Files below the output that hold one of the texts, as bytes or in a column."""
    hits = []
    for file in raw_file(world.output).rglob("*"):
        if not file.is_file():
            continue
        content = file.read_bytes() + _decoded(file)
        hits += [f"{file.name}: {text}" for text in needles if text.encode() in content]
    return hits


def _decoded(file) -> bytes:
    if file.suffix == ".parquet":
        return repr(pq.ParquetFile(file).read().to_pylist()).encode()
    if file.suffix == ".arrow":
        with pa.memory_map(str(file)) as source:
            return repr(pa.ipc.open_file(source).read_all().to_pylist()).encode()
    return b""


__all__ = ["Item", "as_rows", "orphans", "places_of", "read_entries", "read_rows"]
