import json

import polars as pl
import pytest
import torch
from eclip_in_memory import pretrain, read_pairs

from jobs import eclip_tasks as job
from pipelines.benchmark.eclip.match import match_data
from pipelines.demo.tables import write_splits
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.train.eclip.job import PretrainRequest, starting_encoders
from pipelines.train.eclip.recipe import load_eclip_recipe
from pipelines.train.eclip.table import open_pairs
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.eclip.parts import save_eclip
from ulsdram_core.eclip.pretraining import PretrainConfig
from ulsdram_core.text import TextProcessor

SMALL = ["image.size=32", "model.text_encoder.hidden=32", "model.image_encoder.width=8"]
EXTRACT = [
    "model.text_encoder.hidden=32", "model.text_encoder.layers=1", "image.size=32",
    "fit.epochs=1", "fit.batch_size=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Splits of demo listings, and an e-CLIP model trained a little on them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shop")
    config = DemoConfig(num_products=200, picture_size=32, duplicates=0.4)
    write_splits(config, Storage.of(folder / "data"))
    recipe = load_eclip_recipe("eclip_tiny", SMALL)
    data = Storage.of(folder / "data")
    table = open_pairs(data, "train", columns=Columns(), sources=("title",))
    parts = starting_encoders(PretrainRequest(recipe, data, data), table)
    rows = [(p.to_product(), p.catalog_id) for p in generate(config)]
    text = TextProcessor(parts.tokenizer, parts.config.text)
    pairs = list(read_pairs(rows, text, parts.config.image))
    optim = {"text_rate": 3e-3, "image_rate": 3e-3}
    options = {"epochs": 4, "stream_pairs": 32, "optim": optim, "precision": "fp32"}
    list(pretrain(parts, pairs, PretrainConfig.model_validate(options)))
    save_eclip(parts, folder / "model")
    return folder


@pytest.fixture(scope="module")
def report(shop):
    arguments = ["--data", str(shop / "data"), "--out", str(shop / "out")]
    arguments += ["--model", f"e-CLIP={shop / 'model'}", "--baseline", "eclip_tiny"]
    for override in SMALL:
        arguments += ["--set", override]
    arguments += ["--category", "category", "--cluster", "category", "--match", "catalog_id"]
    arguments += ["--match", "picture_hash", "--binary", 'watch=col("category") == "watch"']
    arguments += ["--extract", "tiny", "--extract-shares", "0.1", "--seeds", "1", "--folds", "3"]
    arguments += ["--extract-test-rows", "10", "--extract-steps", "2", "--fine-tune", "1"]
    for override in EXTRACT:
        arguments += ["--extract-set", override]
    summary = job.main(arguments)
    return summary, json.loads((shop / "out" / "report.json").read_text())["figures"]


def figures(report, **wanted):
    return [f for f in report[1] if all(f[key] == value for key, value in wanted.items())]


def test_every_task_is_measured_for_every_system(report, shop):
    summary, found = report
    assert summary["systems"] == ["as they came", "e-CLIP"]
    tasks = {f["task"] for f in found}
    assert tasks == {
        "category category", "binary watch", "clusters category", "matching", "extraction"
    }  # fmt: skip
    for system in summary["systems"]:
        ways = {(f["modality"], f["way"]) for f in figures(report, system=system)}
        assert {
            ("text", "linear probe"),
            ("picture", "linear probe"),
            ("both", "linear probe"),
        } <= ways
        for task in ("category category", "binary watch"):
            tuned = figures(report, system=system, task=task, way="fine-tune")
            assert [f["modality"] for f in tuned] == ["text", "picture", "both"]
            assert all(" trained on, " in f["detail"] for f in tuned)
        assert ("text to text", "nearest") in ways
    # Without trained heads a picture cannot be compared with a text.
    assert not figures(report, system="as they came", modality="picture to text")
    assert not figures(report, system="as they came", modality="picture", way="zero-shot")
    for figure in found:
        for name, value in figure["values"].items():
            assert -1 <= value <= 1.5, (figure, name)
    markdown = (shop / "out" / "report.md").read_text()
    assert "no figure is the paper's" in markdown
    assert "| text to text | nearest | e-CLIP | r1 " in markdown


def test_pretrained_encoders_read_categories_off_pictures(report):
    (figure,) = figures(
        report, task="category category", modality="both", way="linear probe", system="e-CLIP"
    )
    assert figure["values"]["accuracy"] > 0.5
    (figure,) = figures(
        report, task="binary watch", modality="text", way="linear probe", system="e-CLIP"
    )
    assert figure["values"]["auc"] > 0.9
    (figure,) = figures(report, task="matching", modality="picture to text")
    assert figure["values"]["r1_low"] <= figure["values"]["r1"] <= figure["values"]["r1_high"]
    assert figure["values"]["r1"] <= figure["values"]["r5"] <= figure["values"]["r10"]
    assert "queries are training products" in figure["detail"]


@pytest.mark.usefixtures("report")
def test_vectors_are_kept_for_the_next_time(shop):
    before = sorted((shop / "out" / "vectors").iterdir())
    assert len(before) == 6
    arguments = ["--data", str(shop / "data"), "--out", str(shop / "out")]
    job.main([*arguments, "--model", f"e-CLIP={shop / 'model'}", "--cluster", "category"])
    assert sorted((shop / "out" / "vectors").iterdir()) == before


def test_rows_that_match_and_rows_that_ask():
    frame = pl.DataFrame(
        {
            "texts": ["a", "b", "a", "c", "c", "d", "e"],
            "key": ["x", "x", "x", "y", "y", None, None],
        }
    )
    data = match_data(frame, "key")
    assert data.queries.tolist() == [0, 1, 2]
    assert len(set(data.groups[[0, 3, 5, 6]].tolist())) == 4
    with pytest.raises(ValueError, match="is no column"):
        match_data(frame, "nope")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least one system"),
        (["--model", "x"], "expected NAME=URI"),
        (["--model", "x=MODEL", "--category", "nope"], "found no column 'nope'"),
        (["--model", "x=MODEL", "--binary", "a=col('category') == 'none'"], "equal for all rows"),
        (["--extract-shares", "0"], "expected shares"),
    ],
)
def test_a_wrong_request_is_named(shop, tmp_path, arguments, message):
    given = [argument.replace("MODEL", str(shop / "model")) for argument in arguments]
    with pytest.raises(ValueError, match=message):
        job.main(["--data", str(shop / "data"), "--out", str(tmp_path), *given])
