"""Where the benchmark's products come from: a prepared folder, or the demo catalogue."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from pipelines.benchmark.paper.settings import BenchmarkConfig
from pipelines.labelled.table import LabelledTable, check_texts, open_labelled
from pipelines.lake.storage import Storage, file_version
from ulsdram_core.demo import DemoConfig, generate, split
from ulsdram_core.schema import Product

DEMO = "demo"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Source:
    """What was asked for; picklable, and hashable by its key."""

    data: str
    config: BenchmarkConfig
    limit: int | None = None
    unlabelled: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_demo(self) -> bool:
        """Whether the products are drawn."""
        return self.data == DEMO

    def key(self) -> str:
        """Return the fingerprint of the products, pictures aside."""
        config = self.config
        facts: list[object] = [self.limit, config.settings.test_limit, config.settings.min_count]
        facts += [config.text.model_dump(mode="json"), config.columns.model_dump(mode="json")]
        facts += [config.settings.vocab_size, config.settings.unlabelled_limit, self.unlabelled]
        facts.append(_demo_config(config).model_dump() if self.is_demo else self._versions())
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def _versions(self) -> list[list[object]]:
        versions: list[list[object]] = []
        for name in SPLITS:
            table = self.table(name, uses_pictures=False)
            for path in table.files:
                info = table.place.sibling(path).info()
                versions.append([name, Path(path).name, info.get("size"), file_version(info)])
        return versions

    def table(self, split_name: str, *, uses_pictures: bool) -> LabelledTable:
        """Return one split of the prepared folder."""
        return open_labelled(
            Storage.of(self.data, dict(self.options)),
            split_name,
            columns=self.config.columns,
            sources=self.config.text.sources,
            uses_pictures=uses_pictures,
        )

    def check(self) -> None:
        """Refuse data that no run could use, before anything starts."""
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}, expected 1 or more products")
        if not self.is_demo:
            for name in SPLITS:
                check_texts(self.table(name, uses_pictures=False))

    def read(self, split_name: str, *, with_pictures: bool) -> list[Product]:
        """Return the products of one split, thinned evenly to its limit; gold of read texts."""
        limit = self.limit if split_name == "train" else self.config.settings.test_limit
        if self.is_demo:
            found = _drawn(_demo_config(self.config), split_name, with_pictures=with_pictures)
            products = [found[i] for i in thinned(len(found), limit)]
        else:
            products = list(self._rows(split_name, limit, with_pictures=with_pictures))
        sources = set(self.config.text.sources)
        return [
            replace(product, gold=tuple(g for g in product.gold or () if g.source in sources))
            for product in products
        ]

    def _rows(self, name: str, limit: int | None, *, with_pictures: bool) -> Iterator[Product]:
        table = self.table(name, uses_pictures=with_pictures)
        wanted = set(thinned(table.num_rows, limit))
        offset = 0
        for rows in table.batches(1024):
            keep = [i for i in range(rows.num_rows) if offset + i in wanted]
            offset += rows.num_rows
            if keep:
                yield from table.products(rows.take(keep))

    def unlabelled_texts(self) -> list[Product]:
        """Return products without gold or pictures: the user's own, else all training products.

        Under --limit these are more products than the systems are trained on: extra data.
        """
        most = self.config.settings.unlabelled_limit
        if self.is_demo:
            extra = _demo_config(self.config).model_copy(update={"seed": 1, "with_pictures": False})
            products = [row.to_product() for row in generate(extra)]
        elif self.unlabelled is not None:
            products = self._texts(Storage.of(self.unlabelled, dict(self.options)))
        else:
            products = self._texts(Storage.of(self.data, dict(self.options)).join("train"))
        chosen = thinned(len(products), most)
        return [replace(products[i], gold=None, pictures=()) for i in chosen]

    def _texts(self, place: Storage) -> list[Product]:
        columns, sources = self.config.columns, self.config.text.sources
        path = place.uri.rstrip("/")
        name = path if path.endswith(".parquet") else f"{path}/*.parquet"
        frame = pl.scan_parquet(name, storage_options=place.polars_options)
        known = frame.collect_schema().names()
        texts = {source: columns.sources.get(source, source) for source in sources}
        if missing := [column for column in texts.values() if column not in known]:
            raise ValueError(f"{place.uri} has no column {missing[0]!r}, expected one of {known}")
        category = [columns.category] if columns.category in known else []
        rows = frame.select([*texts.values(), *category]).collect(engine="streaming")
        return [
            Product(
                str(place_),
                {source: row[column] for source, column in texts.items() if row[column]},
                category=row.get(columns.category or ""),
            )
            for place_, row in enumerate(rows.iter_rows(named=True))
        ]


def thinned(count: int, limit: int | None) -> Sequence[int]:
    """Return at most `limit` of `count` places, evenly spread."""
    if limit is None or limit >= count:
        return range(count)
    return [place * count // limit for place in range(limit)]


def _demo_config(config: BenchmarkConfig) -> DemoConfig:
    settings = config.settings
    return DemoConfig(num_products=settings.demo_products, picture_size=settings.picture_size)


def _drawn(config: DemoConfig, name: str, *, with_pictures: bool) -> list[Product]:
    """Draw a split; the validation part serves as test data too, as nothing is tuned on it."""
    names = {"train"} if name == "train" else {"valid", "test"}
    drawn = config.model_copy(update={"with_pictures": with_pictures})
    return [row.to_product() for row in generate(drawn) if split(row.catalog_id) in names]
