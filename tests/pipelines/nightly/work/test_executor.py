"""The stages in this process: rows that end it, rows that raise, devices that break."""

from types import SimpleNamespace

import polars as pl
import pytest
from dictionary_model import DictionarySource
from run_job import Call, small_config
from shop_catalogue import extractions, product, products, write_files

from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage
from pipelines.nightly.work.stages import _extract, _reason_of
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import Extraction, Status


def test_a_row_that_kills_the_only_process_is_isolated_by_running_again(tmp_path):
    rows = products(80)
    rows[33] = product(33, title="POISON")
    write_files(tmp_path / "in", rows)
    call = Call((str(tmp_path / "in"),), Storage.of(tmp_path / "out"))
    codes = []
    while not codes or codes[-1] != 0:
        codes.append(call.run_apart())
        assert len(codes) <= 8, codes
    assert set(codes[:-1]) == {13}
    table = extractions(call.output)
    bad = table.filter(pl.col("status") != "ok").select("product_id", "reason").rows()
    assert bad == [("p000033", "poison_row")]
    assert len(table) == 80


def test_too_many_poison_rows_fail_the_run(tmp_path, run_night):
    write_files(tmp_path / "in", [product(i, title="RAISE") for i in range(40)])
    config = small_config(attempts={"max_poison_rows": 5})
    with pytest.raises(RunFailedError, match="more than 5 rows failed in the model or killed"):
        run_night(tmp_path / "in", config=config)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class AcceleratorError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), None),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (RuntimeError("cudaErrorLaunchFailure: unspecified launch failure"), None),
        (RuntimeError("size mismatch"), Reason.POISON_ROW),
        (ValueError("CUDA is a word of this title"), Reason.POISON_ROW),
    ],
)
def test_what_an_exception_says_of_its_rows(error, reason):
    assert _reason_of(error) is reason


def test_out_of_memory_means_smaller_calls():
    sizes = []

    class Model:
        def extract_decoded(self, rows):
            sizes.append(len(rows))
            if len(rows) > 3:
                raise MemoryError
            return [Extraction(row.product_id, Status.OK) for row in rows]

    rows = [SimpleNamespace(product_id=str(i)) for i in range(10)]
    found = _extract(Model(), rows, lambda: None)
    assert [item.product_id for item in found] == [str(i) for i in range(10)]
    assert {item.status for item in found} == {Status.OK}
    assert sizes == [10, 5, 2, 3, 5, 2, 3]


def test_a_broken_device_blames_no_row(tmp_path, run_night):
    write_files(tmp_path / "in", products(40))
    model = DictionarySource(break_device=str(tmp_path / "broken"))
    with pytest.raises(RuntimeError, match="CUDA error"):
        run_night(tmp_path / "in", model=model)
    assert run_night(tmp_path / "in", model=model)["by_status"] == {"ok": 40}
