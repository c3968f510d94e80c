"""Whole nights that the gate, as shipped, must not let through; and those that it must."""

import math
from dataclasses import dataclass

import deltalake
import polars as pl
import pyarrow as pa
import pytest
from dictionary_model import DictionaryModel, DictionarySource
from run_job import small_config
from shop_catalogue import SCHEMA, extractions, products, write_files

from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage
from ulsdram_core.schema import AttributeScore, Extraction, Status

SHIPPED = small_config(gate={})
ALLOWING = {name: small_config(gate={name: True}) for name in ("allow_vanished", "allow_empty")}


@dataclass(frozen=True)
class BrokenSource(DictionarySource):
    """A model without a value, or with confidences that are no numbers."""

    fault: str = "no value"

    def load(self):
        return BrokenModel(self)


class BrokenModel(DictionaryModel):
    def _extract(self, product):
        if self._source.fault == "no value":
            return Extraction(product.product_id, Status.OK, None, (), ())
        scores = (AttributeScore("color", math.nan),)
        whole = super()._extract(product)
        return Extraction(product.product_id, whole.status, whole.reason, whole.values, scores)


@pytest.fixture
def output(tmp_path):
    return Storage.of(tmp_path / "out")


@pytest.mark.parametrize("count", [20, 300])
def test_an_empty_table_makes_nothing_vanish(count, tmp_path, output, run_night):
    lake = str(tmp_path / "in")
    deltalake.write_deltalake(lake, pa.Table.from_pylist(products(count), schema=SCHEMA))
    run_night(lake, config=SHIPPED)
    before = extractions(output)
    deltalake.write_deltalake(lake, SCHEMA.empty_table(), mode="overwrite")
    with pytest.raises(RunFailedError, match=f"empty_input .*no row for {count} products"):
        run_night(lake, config=SHIPPED)
    with pytest.raises(RunFailedError, match="empty_input"):
        run_night(lake, config=ALLOWING["allow_vanished"])
    assert extractions(output).equals(before)
    assert run_night(lake, config=ALLOWING["allow_empty"])["rows_vanished"] == count


@pytest.mark.parametrize("count", [20, 580])
def test_half_an_export_makes_nothing_vanish_and_the_whole_one_passes(
    count, tmp_path, output, run_night
):
    lake = write_files(tmp_path / "in", products(count), files=2, group=100)
    run_night(lake, config=SHIPPED)
    half = lake / "part-001.parquet"
    kept = half.read_bytes()
    half.unlink()
    with pytest.raises(RunFailedError, match=f"{count // 2} of {count} products vanish") as error:
        run_night(lake, config=SHIPPED)
    assert "\n" not in str(error.value)
    half.write_bytes(kept)
    assert run_night(lake, config=SHIPPED)["rows_vanished"] == 0
    assert (extractions(output)["status"] == "ok").all()
    half.unlink()
    assert run_night(lake, config=ALLOWING["allow_vanished"])["rows_vanished"] == count // 2


def test_two_of_twenty_products_may_vanish(tmp_path, output, run_night):
    lake = write_files(tmp_path / "in", products(20))
    run_night(lake, config=SHIPPED)
    write_files(lake, products(18))
    summary = run_night(lake, config=SHIPPED)
    assert summary["rows_vanished"] == 2
    assert extractions(output).filter(pl.col("status") == "vanished").height == 2
    verdicts = {check["name"]: check["verdict"] for check in summary["gate"]}
    assert verdicts["vanished_rate"] == "passed"
    assert verdicts["quarantine_rate"] == "not judged"


def test_one_unreadable_file_stops_a_night_until_it_is_mended(tmp_path, output, run_night):
    lake = write_files(tmp_path / "in", products(60))
    part = lake / "part-001.parquet"
    whole = part.read_bytes()
    part.write_bytes(b"PAR1 broken")
    with pytest.raises(RunFailedError, match="unreadable_files is 1"):
        run_night(lake, config=SHIPPED)
    part.write_bytes(whole)
    assert run_night(lake, config=SHIPPED)["rows_extracted"] == 60
    assert len(extractions(output)) == 60


@pytest.mark.parametrize(
    ("fault", "message"), [("no value", "values_drop"), ("NaN", "bad_confidences")]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_broken_model_publishes_nothing(fault, message, is_first, tmp_path, output, run_night):
    lake = write_files(tmp_path / "in", products(40))
    if not is_first:
        run_night(lake, config=SHIPPED)
        before = extractions(output)
    with pytest.raises(RunFailedError, match=message):
        run_night(lake, config=SHIPPED, model=BrokenSource(version="2", fault=fault))
    if not is_first:
        assert extractions(output).equals(before)


def test_pictures_that_all_break_at_once_publish_nothing(tmp_path, output, run_night):
    lake = write_files(tmp_path / "in", products(60))
    run_night(lake, config=SHIPPED)
    write_files(lake, [row | {"image": b"\x89PNG broken"} for row in products(60)])
    with pytest.raises(RunFailedError, match=r"degraded_jump is 1\.000"):
        run_night(lake, config=SHIPPED)
    assert (extractions(output)["status"] == "ok").all()
