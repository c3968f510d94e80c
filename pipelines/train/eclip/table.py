"""Tables of pairs: a products table of which text, picture and catalogue id are read."""

import pyarrow as pa

from pipelines.labelled.columns import texts_of
from pipelines.labelled.pixels import PIXELS, pixel_arrays
from pipelines.labelled.table import LabelledTable, TableError, footers, parquet_files, text_columns
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.train.eclip.recipe import EclipRecipe
from ulsdram_core.eclip.pairs import Pair, make_pair
from ulsdram_core.schema import Product
from ulsdram_core.text import TextProcessor


def open_pairs(
    data: Storage, split: str, *, columns: Columns, sources: tuple[str, ...], extra: tuple = ()
) -> LabelledTable:
    """Check one split of a folder; gold is not needed. `extra` columns are read where present."""
    place = data.join(split)
    wanted = "pairs of text and picture; run jobs/prepare.py pairs"
    files = parquet_files(place, wanted=wanted)
    schema, num_rows = footers(place, files)
    texts = text_columns(place, schema, columns, sources)
    chosen = (columns.image, columns.images)
    pictures = [name for name in chosen if name and name in schema.names]
    if not num_rows or not pictures:
        raise TableError(
            f"{place.uri} has {num_rows} rows and columns {schema.names}, expected rows with a "
            "picture; name the column with --set columns.image=NAME"
        )
    others = [name for name in extra if name and name in schema.names]
    names = dict.fromkeys([columns.product_id, *texts, *others, *pictures])
    return LabelledTable(
        place=place,
        files=tuple(files),
        num_rows=num_rows,
        columns=columns,
        sources=tuple(sources),
        names=tuple(names),
        picture_columns=tuple(pictures),
    )


def open_recipe_pairs(data: Storage, split: str, recipe: EclipRecipe) -> LabelledTable:
    """Return one split, with the columns that a recipe reads."""
    table = open_pairs(
        data,
        split,
        columns=recipe.columns,
        sources=recipe.text.sources,
        extra=(recipe.catalog_column,),
    )
    kind = recipe.pretrain.targets.kind
    # Without catalogue ids every listing is a product of its own: plain CLIP under another name.
    if kind != "identity" and recipe.catalog_column not in table.names:
        raise TableError(
            f"{table.place.uri} has no column {recipe.catalog_column!r}, expected catalogue ids "
            f"for pretrain.targets.kind={kind}; run jobs/prepare.py pairs, name the column with "
            "--set catalog_column=NAME, or train plain CLIP with --set "
            "pretrain.targets.kind=identity"
        )
    return table


def pairs_of_rows(
    rows: pa.Table, table: LabelledTable, text: TextProcessor, recipe: EclipRecipe
) -> list[Pair | None]:
    """Return decoded rows as pairs, in order; None where text or picture cannot be used."""
    pairs = []
    for row in rows.to_pylist():
        product = Product(
            str(row[table.columns.product_id]), texts_of(row, table.columns, table.sources)
        )
        catalog = row.get(recipe.catalog_column or "")
        pixels = pixel_arrays(row.get(PIXELS), recipe.image.size)
        pairs.append(make_pair(product, pixels, text, None if catalog is None else str(catalog)))
    return pairs
