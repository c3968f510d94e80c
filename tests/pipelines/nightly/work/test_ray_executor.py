"""The same stages on Ray: same rows, dead workers survived, poison rows alone."""

import polars as pl
import pytest
from dictionary_model import DictionarySource
from run_job import small_config
from shop_catalogue import (
    assert_same_tables,
    extractions,
    product,
    products,
    write_file,
    write_files,
)

from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage
from pipelines.nightly.work.ray_executor import PoolSizes, WorkerConfig, pool_sizes
from pipelines.nightly.work.staging import Receipt

RAY = {"executor": "ray", "chunks": {"rows": 64, "batch_rows": 16, "part_rows": 32}}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_publishes_the_rows_of_the_plain_calls(run_night, tmp_path):
    lake = write_files(tmp_path / "in", products(300), files=4)
    write_file(lake / "odd.parquet", [product(i, image=b"x", title=None) for i in range(400, 410)])
    (lake / "broken.parquet").write_bytes(b"PAR1")
    summary = run_night(lake, config=small_config(**RAY))
    run_night(lake, output=tmp_path / "plain")
    assert_same_tables(Storage.of(tmp_path / "out"), Storage.of(tmp_path / "plain"))
    assert summary["rows_extracted"] == 310
    assert summary["decode_core_seconds"] > 0
    assert summary["model_core_seconds"] > 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(600)
def test_a_dead_actor_and_poison_rows_cost_nothing_else(run_night, tmp_path):
    rows = products(1000)
    rows[777] = product(777, title="red POISON")
    rows[300] = product(300, title="red RAISE")
    lake = write_files(tmp_path / "in", rows, files=2, group=250)
    model = DictionarySource(die_once=str(tmp_path / "died"))
    config = small_config(**RAY | {"workers": {"model_workers": 2}})
    summary = run_night(lake, config=config, model=model)
    assert (tmp_path / "died").exists()
    table = extractions(Storage.of(tmp_path / "out"))
    bad = table.filter(pl.col("status") != "ok").select("product_id", "status", "reason").rows()
    assert bad == [
        ("p000300", "quarantined", "poison_row"),
        ("p000777", "quarantined", "poison_row"),
    ]
    assert len(table) == 1000
    assert summary["poison_rows"] == 2
    assert summary["worker_failures"] <= 20


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(300)
def test_no_row_passes_through_the_driver(run_night, tmp_path, monkeypatch):
    received: dict[int, int] = {}
    known = Receipt.from_json

    def count(text: str) -> Receipt:
        received[size] += len(text)
        return known(text)

    monkeypatch.setattr(Receipt, "from_json", staticmethod(count))
    config = small_config(executor="ray", chunks={"batch_rows": 100, "part_rows": 500})
    for size in (1_000, 10_000):
        received[size] = 0
        rows = [product(i, image=None, title="red " * 100) for i in range(size)]
        lake = write_files(tmp_path / str(size), rows, files=2)
        run_night(lake, config=config, output=tmp_path / f"out-{size}")
    assert received[10_000] / 10_000 <= 1.1 * received[1_000] / 1_000 < 2  # bytes a row


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(300)
def test_a_broken_device_costs_an_actor_and_no_row(run_night, tmp_path):
    lake = write_files(tmp_path / "in", products(300), files=2)
    model = DictionarySource(break_device=str(tmp_path / "broken"))
    summary = run_night(lake, config=small_config(**RAY), model=model)
    assert (tmp_path / "broken").exists()
    assert summary["by_status"] == {"ok": 300}
    assert (summary["poison_rows"], summary["worker_failures"]) == (0, 1)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(300)
def test_actors_for_every_place_leave_one_for_decoding(run_night, tmp_path):
    """As when a node is lost and the others are full of models."""
    lake = write_files(tmp_path / "in", products(300), files=4)
    workers = {"model_workers": 4, "decode_workers": 2, "cpus_per_worker": 1.0}
    assert (
        run_night(lake, config=small_config(**RAY | {"workers": workers}))["rows_extracted"] == 300
    )


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_model_that_cannot_load_fails_the_run(run_night, tmp_path):
    lake = write_files(tmp_path / "in", products(20))
    model = DictionarySource(loads=str(tmp_path / "missing" / "folder"))
    with pytest.raises(RunFailedError, match="no model worker could start"):
        run_night(lake, config=small_config(**RAY), model=model)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_model_replaced_since_the_plan_fails_the_run(run_night, tmp_path):
    lake = write_files(tmp_path / "in", products(20))
    model = DictionarySource(put_in_place="2")
    with pytest.raises(RunFailedError, match="the model was replaced while the night ran"):
        run_night(lake, config=small_config(**RAY), model=model)


@pytest.mark.parametrize(
    ("cluster", "config", "expected"),
    [
        ({"CPU": 4.0}, {}, PoolSizes(2, 2, 0.0)),
        ({"CPU": 16.0, "GPU": 1.0}, {}, PoolSizes(1, 2, 1.0)),
        ({"CPU": 16.0, "GPU": 2.0}, {"gpus_per_model_worker": 0.5}, PoolSizes(4, 2, 0.5)),
        ({"CPU": 4.0}, {"model_workers": 3, "decode_workers": 1}, PoolSizes(3, 1, 0.0)),
    ],
)
def test_pool_sizes(cluster, config, expected):
    assert pool_sizes(WorkerConfig(**config), cluster, num_cores=2) == expected
