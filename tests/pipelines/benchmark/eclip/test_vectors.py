import polars as pl
import pytest

from pipelines.benchmark.eclip.vectors import embed_split, split_frame
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.train.eclip.table import open_pairs
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.parts import EclipConfig, assemble_eclip
from ulsdram_core.encoders.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    encoders = {"text_encoder": {"hidden": 16, "layers": 1, "heads": 2},
                "image_encoder": {"architecture": "tiny", "width": 4}, "dim": 8}  # fmt: skip
    config = EclipConfig.model_validate({"model": encoders, "image": {"size": 32}})
    return Embedder(assemble_eclip(config, build_tokenizer(["a mug", "a shirt"], 100)))


def write(folder, *, titles) -> None:
    config = DemoConfig(num_products=4, picture_size=32, missing_pictures=0.0)
    pictures = [p.picture for p in generate(config)]
    frame = pl.DataFrame({"product_id": list("abcd"), "title": titles, "name": titles[::-1]})
    place = folder / "train"
    place.mkdir(exist_ok=True)
    frame.with_columns(image=pl.Series(pictures)).write_parquet(
        place / "a.parquet", compression="uncompressed"
    )


def embed(folder, embedder, columns):
    table = open_pairs(Storage.of(folder), "train", columns=columns, sources=("title",))
    cache = folder / "vectors"
    found = embed_split(embedder, table, split_frame(table, None), cache=cache)
    return found.features.text, len(list(cache.iterdir()))


def test_other_columns_and_rewritten_tables_are_encoded_anew(tmp_path, embedder):
    write(tmp_path, titles=["mug", "shirt", "mug shirt", "a mug"])
    first, count = embed(tmp_path, embedder, Columns())
    assert count == 1
    again, count = embed(tmp_path, embedder, Columns())
    assert count == 1
    assert again.equal(first)
    named = Columns(sources={"title": "name"})
    other, count = embed(tmp_path, embedder, named)
    assert count == 2
    assert other.equal(first.flip(0))
    size = (tmp_path / "train" / "a.parquet").stat().st_size
    write(tmp_path, titles=["shirt", "mug", "mug shirt", "a mug"])
    assert (tmp_path / "train" / "a.parquet").stat().st_size == size
    rewritten, count = embed(tmp_path, embedder, Columns())
    assert count == 3
    assert not rewritten.equal(first)
