import numpy as np
import polars as pl
import pytest
import torch

from jobs import embed_catalog as job
from pipelines.analysis.nearest import VectorTable
from pipelines.demo.tables import product_row, write_products
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.parts import EclipConfig, assemble_eclip, save_eclip
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.image import decode_picture
from ulsdram_core.schema import DecodedProduct

SETTINGS = ["--set", "executor=local", "--set", "num_buckets=3", "--set", "gate.min_rows=10000"]


@pytest.fixture(scope="module")
def products():
    found = list(generate(DemoConfig(num_products=40, picture_size=32, missing_pictures=0.1)))
    assert any(product.picture is None for product in found)
    return found


@pytest.fixture(scope="module")
def model(products, tmp_path_factory):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = EclipConfig.model_validate(
        {
            "model": {
                "text_encoder": {"hidden": 32, "layers": 1, "heads": 2},
                "image_encoder": {"architecture": "tiny", "width": 8},
                "dim": 16,
            },
            "image": {"size": 32},
            "is_aligned": True,
        }
    )
    parts = assemble_eclip(config, build_tokenizer([p.title for p in products], 300))
    return save_eclip(parts, tmp_path_factory.mktemp("eclip") / "model")


@pytest.fixture(scope="module")
def first(products, model, tmp_path_factory):
    """The first night: input folder, table, summary."""
    folder = tmp_path_factory.mktemp("lake")
    write_products(products, Storage.of(folder / "in" / "products.parquet"))
    return folder, run(folder, model)


def run(folder, model, *more):
    arguments = ["--model", str(model), "--input", str(folder / "in")]
    return job.main([*arguments, "--output", str(folder / "t"), *SETTINGS, *more])


def rows(folder) -> pl.DataFrame:
    return pl.read_delta(str(folder / "t" / "extractions")).sort("product_id")


def test_vectors_are_those_of_the_model(first, products, model):
    folder, summary = first
    assert summary["state"] == "published"
    embedder = Embedder.load(model)
    image = embedder.parts.config.image
    decoded = [
        DecodedProduct(
            p.product_id, {"title": p.title},
            (decode_picture(p.picture, image),) if p.picture else (),
        )
        for p in sorted(products, key=lambda p: p.product_id)
    ]  # fmt: skip
    wanted = embedder.embed(decoded)
    table = rows(folder)
    assert table["product_id"].to_list() == [p.product_id for p in decoded]
    for place, row in enumerate(table.iter_rows(named=True)):
        np.testing.assert_allclose(row["text_vector"], wanted.text[place].numpy(), atol=1e-5)
        np.testing.assert_allclose(row["joint_vector"], wanted.joint()[place].numpy(), atol=1e-5)
        assert (row["picture_vector"] is None) == (not decoded[place].pictures)
        assert row["status"] == ("ok" if decoded[place].pictures else "degraded")
        assert row["values"] == []


def test_the_second_night_works_on_what_changed_only(first, products, model, tmp_path):
    before = rows(first[0])
    changed = [product_row(product) for product in products[1:]]
    changed[4]["title"] += " new"
    frame = pl.DataFrame(changed)
    (tmp_path / "in").mkdir()
    write_products(products, Storage.of(tmp_path / "in" / "products.parquet"))
    run(tmp_path, model)
    frame.write_parquet(tmp_path / "in" / "products.parquet")
    summary = run(tmp_path, model)
    assert summary["rows_worked"] == 1
    after = rows(tmp_path)
    assert after.height == before.height
    one = pl.col("product_id") == products[5].product_id
    same = ~one & (pl.col("product_id") != products[0].product_id)
    vectors = ["product_id", "text_vector", "picture_vector", "joint_vector"]
    assert after.filter(same).select(vectors).equals(before.filter(same).select(vectors))
    assert not after.filter(one).select(vectors).equals(before.filter(one).select(vectors))
    gone = after.filter(pl.col("product_id") == products[0].product_id)
    assert gone["status"].to_list() == ["vanished"]
    assert gone["joint_vector"].null_count() == 0


def test_nearest_products_equal_a_full_sort(first, monkeypatch, capsys):
    monkeypatch.setattr("pipelines.analysis.nearest.BLOCK_ROWS", 4)
    folder, _ = first
    table = rows(folder)
    vectors = np.stack(table["joint_vector"].to_list())
    opened = VectorTable.open(Storage.of(folder / "t"))
    ids = table["product_id"].to_list()
    np.testing.assert_array_equal(opened.vectors(ids[:3]), vectors[:3])
    found = opened.nearest(vectors[:3], k=5)
    for query in range(3):
        mine = found.filter(pl.col("query") == query)
        scores = np.sort(vectors @ vectors[query])[::-1][:5]
        np.testing.assert_allclose(mine["similarity"], scores, atol=1e-6)
        assert mine["product_id"][0] == ids[query]
    summary = job.main(["--output", str(folder / "t"), "--nearest", ids[0], "-k", "2"])
    assert summary == {"queries": 1, "answers": 2}
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{ids[0]}\t1\t{ids[0]}\t1.0000")


def test_wrong_requests_are_named(first, tmp_path):
    folder, _ = first
    with pytest.raises(ValueError, match="has no joint_vector"):
        job.main(["--output", str(folder / "t"), "--nearest", "nope"])
    with pytest.raises(ValueError, match="found no vectors"):
        job.main(["--output", str(tmp_path), "--nearest", "x"])
    with pytest.raises(ValueError, match="found no --model"):
        job.main(["--output", str(tmp_path), "--input", str(folder / "in")])
