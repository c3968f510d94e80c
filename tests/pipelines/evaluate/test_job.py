"""What `evaluate` refuses before a cluster starts."""

import polars as pl
import pytest

from pipelines.evaluate.job import EvaluateRequest, evaluate, named_columns
from pipelines.labelled.table import TableError
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from ulsdram_core.checkpoint import save_model
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.parts import ExtractorConfig, assemble

SPAN = {"attribute": "brand", "value": "Acme", "start": 0, "end": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of one attribute whose recipe names other columns."""
    folder = tmp_path_factory.mktemp("model") / "model"
    tiny = {"hidden": 32, "layers": 1}
    config = ExtractorConfig(model=ModelConfig.model_validate({"text_encoder": tiny}))
    parts = assemble(config, LabelSet(attributes=("brand",)), build_tokenizer(["acme"], 100))
    parts.recipe = '[columns]\nproduct_id = "key"\n[columns.sources]\ntitle = "name"\n'
    save_model(parts, folder)
    return Storage.of(folder)


def asked(model, folder, gold, **options):
    (folder / "test").mkdir()
    frame = pl.DataFrame({"key": ["1"], "name": ["Acme shoe"], "gold": gold})
    frame.write_parquet(folder / "test" / "0.parquet")
    evaluate(EvaluateRequest(model, Storage.of(folder), **options))


@pytest.mark.parametrize(
    ("gold", "options", "message"),
    [
        ([[{**SPAN, "attribute": "colour"}]], {}, "gold of colour, expected .* 1 attr.* .brand"),
        (pl.Series([[], [SPAN]]).head(1), {}, "gold of no attribute"),
        (pl.Series([None, [SPAN]]).head(1), {}, "rows with unlabelled"),
        ([[SPAN]], {"slices": ('x=col("name")',)}, "slice 'x' gives name: String"),
        ([[SPAN]], {"columns": ("title=titel",)}, "no column 'titel'"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_starts(model, tmp_path, gold, options, message):
    with pytest.raises(TableError, match=message):
        asked(model, tmp_path, gold, **options)


def test_an_output_that_is_a_folder_is_refused_first(model, tmp_path):
    with pytest.raises(ValueError, match="expected a file's place"):
        asked(model, tmp_path, [[SPAN]], output=Storage.of(tmp_path))


def test_more_workers_than_a_given_cluster_has_cpus(model, tmp_path, ray_cluster):  # noqa: ARG001
    with pytest.raises(ValueError, match="found 4 CPUs in the Ray cluster, expected 5"):
        asked(model, tmp_path, [[SPAN]], num_workers=4)


def test_named_columns_take_the_place_of_the_recipes():
    known = Columns(product_id="key", sources={"title": "name"})
    found = named_columns(["category=kind", "description=body"], known)
    assert (found.product_id, found.category) == ("key", "kind")
    assert found.sources == {"title": "name", "description": "body"}
