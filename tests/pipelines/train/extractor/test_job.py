import json

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate.job import EvaluateRequest, evaluate
from pipelines.evaluate.scoring import SWEEP, evaluate_table
from pipelines.labelled.corrections import COLUMNS, read_corrections
from pipelines.labelled.table import TableError, open_labelled
from pipelines.lake.storage import Storage
from pipelines.train.extractor import job
from pipelines.train.extractor.job import TrainRequest, run_fingerprints, train
from pipelines.train.extractor.recipe import CalibrationConfig
from pipelines.train.runs import finished_summary
from ulsdram_core.extractor import Extractor
from ulsdram_core.metrics import ExtractionMetrics

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def trained(ray_cluster, demo_data, small_recipe, tmp_path_factory):  # noqa: ARG001
    """A finished run and its summary."""
    output = Storage.of(tmp_path_factory.mktemp("run"))
    request = TrainRequest(small_recipe, Storage.of(demo_data), output)
    scored = []

    def watched(model, *arguments, **options):
        scored.append(model.uri)
        return evaluate_table(model, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "evaluate_table", watched)
        summary = train(request)
    # Every node can read the output; a temporary folder of the driver it cannot.
    assert scored == [output.join("_draft").uri]
    return request, summary


def test_a_run_leaves_a_model_a_log_and_events(trained):
    request, summary = trained
    made = {"model", "checkpoints", "metrics.jsonl", "tensorboard", "_ulsdram.json"}
    assert set(request.output.names()) == made
    entries = [
        json.loads(line) for line in request.output.join("metrics.jsonl").read_bytes().splitlines()
    ]
    assert [e["step"] for e in entries if e["kind"] == "step"] == list(
        range(1, summary["steps"] + 1)
    )
    assert len([e for e in entries if e["kind"] == "epoch"]) == 2
    assert summary["epochs"] == 2
    card = request.output.join("model", "README.md").read_bytes().decode()
    assert summary["model_id"] in card
    assert summary["threshold_sweep"]
    assert "hidden = 32" in request.output.join("model", "recipe.toml").read_bytes().decode()


def test_the_same_request_again_trains_nothing(trained):
    request, summary = trained
    again = train(request)
    assert again["already_trained"]
    assert again["model_id"] == summary["model_id"]


def test_evaluate_equals_the_extractor_in_process(trained, demo_data):
    request, _ = trained
    result = evaluate(
        EvaluateRequest(
            model=request.output.join("model"),
            data=Storage.of(demo_data),
            slices=(
                'shoes=col("category") == "shoes"',
                'seen=col("image").is_not_null()',
                'late=col("product_id") > col("product_id").sort().slice(10).first()',
            ),
            num_workers=2,
        )
    )
    extractor = Extractor.load(request.output.join("model").path)
    table = open_labelled(
        Storage.of(demo_data),
        "test",
        columns=request.recipe.columns,
        sources=("title",),
        uses_pictures=True,
    )
    products = table.products(pq.read_table(demo_data / "test"))
    metrics = ExtractionMetrics()
    for product, extraction in zip(products, extractor.extract(products), strict=True):
        metrics.update(product.gold, extraction)
    assert result.summary["num_products"] == len(products)
    assert result.summary["tag"]["f1"] == pytest.approx(metrics.compute()["tag"]["micro"]["f1"])
    rows = pl.read_parquet(demo_data / "test")
    assert "slice shoes" in result.table
    members = {
        "shoes": rows["category"] == "shoes",
        "seen": rows["image"].is_not_null(),
        "late": rows["product_id"] > rows["product_id"].sort()[10],
    }
    for name, inside in members.items():
        gold = sum(len(set(p.gold)) for p, kept in zip(products, inside, strict=True) if kept)
        assert result.summary["slices"][name]["gold"] == gold


@pytest.mark.slow
def test_warm_start_and_target_precision(trained, demo_data, small_recipe, tmp_path):
    request, summary = trained
    wanted = small_recipe.calibration.model_copy(update={"target_precision": 0.9})
    fit = small_recipe.fit.model_copy(update={"epochs": 1})
    recipe = small_recipe.model_copy(update={"calibration": wanted, "fit": fit})
    found = train(
        TrainRequest(
            recipe,
            Storage.of(demo_data),
            Storage.of(tmp_path / "out"),
            num_workers=2,
            init_from=request.output.join("model"),
        )
    )
    assert found["model_id"] != summary["model_id"]
    assert found["value_thresholds"]
    assert found["valid"]["f1"] >= 0
    extractor = Extractor.load(tmp_path / "out" / "model")
    assert extractor.config.thresholds.value == found["value_thresholds"]


def test_a_slice_over_a_missing_column_is_named(trained, demo_data):
    request, _ = trained
    with pytest.raises(TableError, match="slice 'x' reads column 'colour', expected one of"):
        evaluate(
            EvaluateRequest(
                model=request.output.join("model"),
                data=Storage.of(demo_data),
                slices=('x=col("colour") == "red"',),
            )
        )


@pytest.mark.slow
def test_corrections_change_the_run(trained, demo_data, small_recipe, tmp_path):
    request, _ = trained
    path = tmp_path / "corrections.csv"
    path.write_text(",".join(COLUMNS) + "\ndemo-0-0000000,color,red,no,\n", encoding="utf-8")
    changed = TrainRequest(
        small_recipe, Storage.of(demo_data), request.output, corrections=Storage.of(path)
    )
    corrections = read_corrections(Storage.of(path))
    table = open_labelled(
        Storage.of(demo_data),
        "train",
        columns=small_recipe.columns,
        sources=("title",),
        uses_pictures=True,
        corrections=corrections,
    )
    _, fingerprint = run_fingerprints(changed, {"train": table})
    assert finished_summary(changed.output, fingerprint) is None


@pytest.mark.slow
def test_another_calibration_trains_nothing(trained, small_recipe):
    request, summary = trained
    logged = request.output.join("metrics.jsonl").read_bytes()
    calibration = CalibrationConfig(choose_confidence=True)
    recipe = small_recipe.model_copy(update={"calibration": calibration})
    found = train(TrainRequest(recipe, request.data, request.output))
    assert request.output.join("metrics.jsonl").read_bytes() == logged
    assert (found["steps"], found["history"]) == (summary["steps"], summary["history"])
    best = max(summary["confidence_sweep"], key=lambda row: row["f1"])
    assert set(found["value_thresholds"].values()) == {best["confidence"]}
    assert found["threshold"] == SWEEP[0]
    assert train(request)["model_id"] == summary["model_id"]
