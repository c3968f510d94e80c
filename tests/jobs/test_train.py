import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from jobs import train as job
from pipelines.demo.tables import write_splits
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_splits(DemoConfig(num_products=30, picture_size=32), Storage.of(folder))
    return folder


def damaged(data, tmp_path, change):
    """Copy the data with a changed train table."""
    for split in ("train", "valid"):
        (tmp_path / split).mkdir(parents=True)
        frame = pl.read_parquet(data / split / "part-00000.parquet")
        if split == "train":
            frame = change(frame)
        frame.write_parquet(tmp_path / split / "part-00000.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename({"title": "name"}), "has no column 'title', expected one of"),
        (lambda f: f.drop("gold"), "has no column 'gold', expected gold spans"),
        (lambda f: f.head(0), "has no rows"),
        (lambda f: f.with_columns(title=pl.lit(7)), "column 'title' is int"),
        (lambda f: f.with_columns(title=pl.lit("  ")), "rows with empty"),
        (lambda f: f.with_columns(gold=None).cast({"gold": f.schema["gold"]}), "with unlabelled"),
    ],
)
def test_a_wrong_table_is_named_before_anything_starts(data, tmp_path, change, message):
    folder = damaged(data, tmp_path / "data", change)
    with pytest.raises(ValueError, match=message):
        job.main(["--recipe", "tiny", "--data", str(folder), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nope"], "found no recipe 'nope'"),
        (["--set", "fit.epoch=1"], "unknown key fit.epoch"),
        (["--workers", "0"], "expected at least 1"),
        (["--target-precision", "98"], "target_precision is .*, expected less than 1"),
        (["--target-precision", "nan"], "target_precision is .*, expected less than 1"),
        (["--target-precision", "-1"], "target_precision is -1.0, expected greater than 0"),
        (["--set", "columns.image=foto"], "no column 'foto'"),
        (["--data", "nosuch://bucket/x"], "nosuch"),
        (["--data", "/no/such/folder"], "found no Parquet files"),
    ],
)
def test_a_wrong_option_is_named(data, tmp_path, arguments, message):
    given = ["--recipe", "tiny", "--data", str(data), "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        job.main([*given, *arguments])


def test_labels_that_do_not_fit_the_model_are_named(data, tmp_path):
    from pipelines.labelled.table import learn_labels, open_labelled
    from pipelines.train.extractor.recipe import load_recipe
    from pipelines.train.extractor.start import extractor_config
    from ulsdram_core.checkpoint import save_model
    from ulsdram_core.encoders.tokenizer import build_tokenizer
    from ulsdram_core.labels import LabelSet
    from ulsdram_core.parts import assemble

    recipe = load_recipe("tiny")
    table = open_labelled(
        Storage.of(data),
        "train",
        columns=recipe.columns,
        sources=("title",),
        uses_pictures=True,
    )
    known = learn_labels(table, recipe.labels)
    parts = assemble(
        extractor_config(recipe),
        LabelSet(attributes=known.attributes[:2]),
        build_tokenizer(["red"], 100),
    )
    save_model(parts, tmp_path / "model")
    given = ["--recipe", "tiny", "--data", str(data), "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="knows 2 attributes, the data also has"):
        job.main([*given, "--init-from", str(tmp_path / "model")])


def test_a_wrong_request_exits_with_2_and_one_line(tmp_path):
    found = subprocess.run(
        [
            sys.executable,
            ROOT / "jobs" / "train_mae.py",
            "--data",
            tmp_path,
            "--out",
            tmp_path / "o",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 2
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "found no Parquet files" in lines[0]
    assert "run jobs/prepare.py" in lines[0]
