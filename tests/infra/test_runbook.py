"""The runbook: its commands parse against this release, and each does what its section says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from job_help import missing_options
from shop import make_model

from pipelines.analysis.request import QUERIES
from pipelines.demo.tables import write_products
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig, generate

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "infra" / "RUNBOOK.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", RUNBOOK, flags=re.MULTILINE | re.DOTALL))
WORDS = ("MODEL", "NEW_MODEL", "INPUT", "TABLE", "NEW_TABLE", "RECIPE", "RUN_ID", "IDS", "SHADOW")
ASKED_FOR = (
    "Resume", "Re-publish", "Roll back to a version", "Replay quarantine", "Backfill",
    "Rotate a model", "Erase a product", "Rebuild from nothing", "Disk full", "Cost",
)  # fmt: skip


def blocks(section: str) -> list[str]:
    """The commands of a section that are to be executed."""
    return re.findall(r"```bash\n(.*?)```", SECTIONS[section], flags=re.DOTALL)


def calls() -> list[tuple[str, list[str]]]:
    """(section, words) of every job that is called."""
    found = []
    for section in SECTIONS:
        for line in "".join(blocks(section)).splitlines():
            for call in re.findall(r"python jobs/\w+\.py[^;&|]*", line):
                found.append((section, shlex.split(call)))
    return found


def test_every_situation_has_its_commands():
    assert set(ASKED_FOR) <= SECTIONS.keys()
    assert all(blocks(section) for section in SECTIONS)


@pytest.mark.parametrize(("section", "words"), calls())
def test_every_option_is_one_of_the_jobs(section, words):
    script = ROOT / words[1]
    assert script.stat().st_mode & 0o111, section
    assert missing_options(script, words[2:]) == [], section
    for word in words[2:]:
        if word.isupper():
            assert word in WORDS, f"{section}: {word}"


def test_every_query_is_one_of_the_analysis():
    asked = set(re.findall(r"--query ([\w-]+)", RUNBOOK))
    assert asked
    assert asked <= QUERIES.keys()


def test_every_placeholder_is_explained():
    table = RUNBOOK.partition("\n## ")[0]
    assert all(f"`{word}`" in table for word in WORDS)


class Shop:
    """A lake on an S3 server, two models, and a shell that types the runbook's commands."""

    def __init__(self, folder: Path, server, name: str) -> None:
        self.folder = folder
        self.place = Storage.of(server.uri(f"runbook-{name}"), server.options)
        self.products = list(generate(DemoConfig(num_products=60, picture_size=32)))
        self.recipe = folder / "nightly.toml"
        self.recipe.write_text(
            'kind = "nightly"\nexecutor = "local"\nnum_buckets = 4\n'
            "[chunks]\nbatch_rows = 20\n[gate]\nmin_rows = 10\nmax_null_rate = 1.0\n"
            "max_attribute_drift = 100.0\nmax_quarantine_rate = 1.0\n"
        )
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
        self.values = {
            "MODEL": str(folder.parent / "models" / "text"),
            "NEW_MODEL": str(folder.parent / "models" / "vl"),
            "INPUT": self.place.join("in").uri,
            "TABLE": self.place.join("table").uri,
            "NEW_TABLE": self.place.join("new").uri,
            "SHADOW": self.place.join("shadow").uri,
            "RECIPE": str(self.recipe),
            "IDS": str(folder / "ids.txt"),
            "RUN_ID": "",
        }
        self.export(60)

    def export(self, count: int) -> None:
        """The catalogue now has the first `count` products."""
        write_products(self.products[:count], self.place.join("in", "products.parquet"))

    def type(self, section: str, *, number: int = 0, replace: dict | None = None) -> dict:
        """Run one block of a section as it stands, but for its placeholders; the last summary."""
        text = blocks(section)[number]
        for old, new in (replace or {}).items():
            assert old in text
            text = text.replace(old, new)
        names = sorted(self.values, key=len, reverse=True)
        text = re.sub(rf"\b({'|'.join(names)})\b", lambda found: self.values[found[1]], text)
        text = text.replace("python jobs/", f"python {ROOT}/jobs/")
        done = subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        summary = json.loads(lines[-1]) if lines else {}
        return {**summary, "rc": done.returncode, "err": done.stderr, "out": done.stdout}

    def night(self, **replace: str) -> dict:
        done = self.type("Resume", replace=replace)
        assert done["rc"] == 0, done["err"]
        return done

    def rows(self, name: str = "table") -> pl.DataFrame:
        place = self.place.join(name, "extractions")
        frame = pl.scan_delta(place.uri, storage_options=place.polars_options).collect()
        return frame.drop("run_id", "extracted_at").sort("product_id")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runbook")
    products = list(generate(DemoConfig(num_products=60, picture_size=32)))
    for name in ("text", "vl"):
        make_model(name, products, folder / "models")
    return folder


@pytest.fixture
def desk(models, s3_server, request) -> Shop:
    folder = models / re.sub(r"\W", "-", request.node.name)
    folder.mkdir()
    return Shop(folder, s3_server, folder.name)


pytestmark = pytest.mark.timeout(900)


@pytest.mark.slow
def test_resume(desk):
    desk.environment["ULSDRAM_CRASH_AT"] = "after_first_receipt"
    assert desk.type("Resume")["rc"] != 0
    del desk.environment["ULSDRAM_CRASH_AT"]
    done = desk.night()
    assert (done["state"], done["rows_extracted"]) == ("published", 60)
    assert done["rows_worked"] == 40


@pytest.mark.slow
def test_republish_roll_back_and_go_on(desk):
    desk.export(20)
    first = desk.night()
    before = desk.rows()
    desk.export(60)
    refused = desk.type("Resume")
    assert (refused["rc"], refused["state"]) == (1, "failed")
    assert desk.rows().equals(before)
    published = desk.type("Re-publish")
    assert (published["rc"], published["rows_worked"]) == (0, 0), published["err"]
    assert len(desk.rows()) == 60
    desk.values["RUN_ID"] = first["run_id"]
    rolled = desk.type("Roll back to a version")
    assert rolled["rc"] == 0, rolled["err"]
    assert first["run_id"] in rolled["out"]
    assert desk.rows().equals(before)
    for secret in ("AWS_SECRET", "secret_access_key"):
        assert secret not in refused["out"] + refused["err"]


@pytest.mark.slow
def test_replay_quarantine_and_slow_night_and_cost(desk):
    broken = desk.place.join("in", "broken.parquet")
    broken.write_bytes(b"PAR1 this is not a table")
    assert desk.night()["files_unreadable"] == 1
    # the same bytes again, repaired in place: only a replay reads them anew
    more = list(generate(DemoConfig(num_products=70, picture_size=32)))[60:]
    write_products(more, broken)
    slow = desk.type("Slow night")
    assert (slow["rc"], slow["rows_to_extract"]) == (0, 10)
    cost = desk.type("Cost")
    assert cost["estimated_cost"] > 0
    done = desk.type("Replay quarantine")
    assert (done["rc"], done["files_unreadable"], done["rows_worked"]) == (0, 0, 10), done["err"]


@pytest.mark.slow
def test_backfill(desk):
    done = desk.type("Backfill", replace={"5000000": "25"})
    assert done["rc"] == 0, done["err"]
    summaries = [line for line in done["out"].splitlines() if line.startswith("{")]
    assert [json.loads(line)["rows_worked"] for line in summaries] == [25, 25, 10]
    assert len(desk.rows()) == 60


@pytest.mark.slow
def test_rotate_a_model(desk):
    old = desk.night()
    shadow = desk.type("Rotate a model", replace={"0.3": "1.0"})
    assert shadow["rc"] == 0, shadow["err"]
    assert (desk.folder / "comparison.html").stat().st_size > 1000
    assert desk.type("Rotate a model", replace={"0.3": "0.0"})["rc"] == 1
    promoted = desk.type("Rotate a model", number=1)
    assert promoted["rc"] == 0, promoted["err"]
    assert promoted["rows_worked"] == 60
    assert promoted["model_id"] != old["model_id"]
    assert set(desk.rows()["model_id"]) == {promoted["model_id"]}


@pytest.mark.slow
def test_erase_and_disk_full(desk):
    desk.night()
    name = desk.rows()["product_id"][7]
    (desk.folder / "ids.txt").write_text(f"{name}\n")
    done = desk.type("Erase a product")
    assert (done["rc"], done["products_erased"]) == (0, 1), done["err"]
    assert name not in desk.rows()["product_id"].to_list()
    desk.night()  # the inputs still hold it
    full = desk.type("Disk full", replace={"vacuum_hours=24": "vacuum_hours=0"})
    assert full["rc"] == 0, full["err"]
    assert full["files_vacuumed"] > 0
    assert len(desk.rows()) == 60


@pytest.mark.slow
def test_rebuild_from_nothing(desk):
    desk.night()
    done = desk.type("Rebuild from nothing")
    assert done["rc"] == 0, done["err"]
    assert desk.rows("new").equals(desk.rows())
