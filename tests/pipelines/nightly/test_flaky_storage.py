"""A storage that fails 5% of requests slows a night down and changes nothing."""

import polars as pl
import pytest
from flaky_proxy import flaky
from run_job import Call
from shop_catalogue import COMPARED, extractions, product, products, upload, write_files

from pipelines.lake.storage import Storage


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_two_nights_on_a_flaky_storage(s3_server, tmp_path, seed):
    root = f"flaky-{seed}-{tmp_path.name}"
    folder = write_files(tmp_path / "in", products(60))
    with flaky(s3_server.endpoint, share=0.05, seed=seed) as proxy:
        options = s3_server.options | {"endpoint_url": proxy.endpoint}
        lake = Storage.of(s3_server.uri(root), options)
        upload(folder, lake.join("in"))
        call = Call((lake.join("in").uri,), lake.join("out"), options)
        assert call.run()["rows_extracted"] == 60
        rows = [*products(50), product(200, title="black wool coat")]
        rows[4] = product(4, image=b"broken")
        write_files(folder, rows)
        upload(folder, lake.join("in"))
        assert call.run()["rows_worked"] == 2
        assert proxy.failed >= 0.02 * proxy.served > 1
    steady = Storage.of(s3_server.uri(root), s3_server.options)
    table = extractions(steady.join("out"))
    is_gone = pl.col("status") == "vanished"
    assert len(table.filter(is_gone)) == 10
    Call((str(folder),), Storage.of(tmp_path / "plain")).run()
    expected = extractions(Storage.of(tmp_path / "plain")).select(COMPARED)
    assert table.filter(~is_gone).select(COMPARED).equals(expected)
