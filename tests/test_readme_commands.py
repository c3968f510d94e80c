"""README's job commands, run in the order a user meets them, on a small catalogue."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest

from pipelines.demo.tables import write_products, write_splits
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig, generate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PREPARE = "python jobs/prepare.py tagged --in DATA --out PREPARED"
# Added to the commands that would train for long or need `make weights`.
SMALL = {
    "benchmark": "--seeds 1 --limit 40 --set settings.epochs=1 --set settings.picture_size=32 "
    "--set settings.demo_products=80 --set settings.unlabelled_limit=60 --set kplug.epochs=1",
    "train": "--random-init --set fit.epochs=1 --set model.text_encoder.layers=1 "
    "--set model.text_encoder.name=tiny --set model.text_encoder.hidden=32 "
    "--set model.image_encoder.architecture=tiny --set model.image_encoder.weights=none "
    "--set model.image_encoder.width=8 --set image.size=32",
}
OUTPUTS = "DATA CATALOGUE PREPARED RUN RUN2 TABLE SNAPSHOT PAIRS ECLIP TASKS VECTORS BENCH"
# Sections that take minutes; `make test-slow` runs them.
SLOW = ("Pre-train", "Compare with")

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def commands(*, slow: bool) -> list[str]:
    """The `python jobs/...` lines of README's shell blocks, without comments and options."""
    found = []
    for section in re.split(r"^## ", README, flags=re.MULTILINE)[1:]:
        if section.startswith(SLOW) == slow:
            blocks = re.split(r"^```\w*\n", section, flags=re.MULTILINE)[1::2]
            found += [line for block in blocks for line in block.splitlines()]
    jobs = [line for line in found if line.startswith("python jobs/")]
    return [re.sub(r"\s+#.*$|\[[^\]]*\]", "", line).strip() for line in jobs]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """What README's capital words stand for; the inputs are there, the outputs are not."""
    folder = tmp_path_factory.mktemp("readme")
    config = DemoConfig(num_products=70, picture_size=32)
    write_splits(config, Storage.of(folder / "data"))
    products = list(generate(config.model_copy(update={"seed": 1})))
    (folder / "catalogue").mkdir()
    write_products(products, Storage.of(folder / "catalogue" / "part-0.parquet"))
    picture = next(item.picture for item in products if item.picture)
    (folder / "shoe.jpg").write_bytes(picture)
    write_mae(folder / "mae", products)
    write_mepave(folder / "mepave")
    names = {word: word.lower() for word in OUTPUTS.split()}
    names |= {"MAE_FOLDER": "mae", "MEPAVE_FOLDER": "mepave", "OTHER_TABLE": "other"}
    names |= {file: file for file in ("shoe.jpg", "drift.csv", "queue.csv", "report.html")}
    return {word: str(folder / name) for word, name in names.items()}


def write_mae(folder: Path, products: list) -> None:
    for split, part in (
        ("train", products[:40]),
        ("val", products[40:50]),
        ("test", products[50:]),
    ):
        items = [
            {"title": item.title, "text": "", "images": [], "specs": dict(item.specs)}
            for item in part
        ]
        (folder / split).mkdir(parents=True)
        (folder / split / "items.json").write_text(json.dumps(items), encoding="utf-8")


def write_mepave(folder: Path) -> None:
    folder.mkdir()
    tagged = "<颜色>红色</颜色>衬衫"
    for split in ("train", "valid", "test"):
        rows = [f"{n}\ts{n}\t红色衬衫{n}\t{tagged}{n}" for n in range(12)]
        text = "\n".join(rows) + "\n"
        (folder / f"jdai.jave.fashion.{split}").write_text(text, encoding="utf-8")


def run(command: str, places: dict[str, str], run_id: str | None) -> dict:
    """Run one command in this process, its words replaced by places; returns the summary."""
    words = {**places, "RUN_ID": run_id or ""}
    pattern = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    _, script, *arguments = (
        re.sub(rf"(?<!\w)({pattern})(?!\w)", lambda found: words[found[1]], part)
        for part in shlex.split(command)
    )
    name = Path(script).stem
    is_small = "tiny" in arguments
    spec = importlib.util.spec_from_file_location(f"readme_{name}", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([*arguments, *([] if is_small else shlex.split(SMALL.get(name, "")))])


@pytest.mark.slow
def test_readmes_commands_run_in_their_order(places):
    run_id = None
    done = []
    for command in commands(slow=False):
        if "compare.py" in command:
            shutil.copytree(places["TABLE"], places["OTHER_TABLE"])
        if "prepare.py" in command:
            shutil.rmtree(places["PREPARED"], ignore_errors=True)
        summary = run(command, places, run_id)
        assert isinstance(summary, dict), command
        run_id = summary.get("run_id", run_id)
        done.append(Path(shlex.split(command)[1]).stem)
        if done[-1] == "prepare" and "mepave" in command:
            run(PREPARE, places, None)  # the table that the next commands read
    wanted = {"prepare", "train", "evaluate", "extract_catalog", "export", "analyze", "report"}
    assert wanted <= set(done)
    for name in ("drift.csv", "queue.csv", "report.html"):
        assert Path(places[name]).stat().st_size > 0


@pytest.mark.slow
def test_the_slow_sections_run_too(places):
    run(PREPARE, places, None)
    ids = pl.scan_parquet(Path(places["CATALOGUE"]) / "*.parquet").select("product_id").collect()
    places = {**places, "PRODUCT_ID": ids.item(0, 0)}
    for command in commands(slow=True):
        assert isinstance(run(command, places, None), dict), command
