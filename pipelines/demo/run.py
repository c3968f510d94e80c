"""The whole product on the built-in catalogue: train, two nights, analysis, report."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.analysis import table
from pipelines.analysis.output import render
from pipelines.cluster.connect import connect_cluster
from pipelines.demo.tables import write_products, write_splits
from pipelines.lake.kinds import DEMO, check_kind, claim, kind_of
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyConfig, NightlyRequest
from pipelines.nightly.work.model_folder import ModelFolder
from pipelines.report.build import ReportRequest, build_report
from pipelines.report.model_view import ModelView
from pipelines.train.extractor.job import TrainRequest, train
from pipelines.train.extractor.recipe import load_recipe
from ulsdram_core.demo import DemoConfig, generate, second_night

SOURCES = 'text.sources=["title","description"]'
Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoRequest:
    """Where the demo works and how big it is."""

    out: Path
    num_labelled: int = 2000
    num_catalogue: int = 1000
    epochs: int = 8
    seed: int = 0
    cards: int = 200


def run_demo(request: DemoRequest, say: Say) -> dict[str, Any]:
    """Run every step in a folder of its own; returns the summary."""
    started = time.monotonic()
    claim_folder(request.out)
    places = _Places(request.out)
    connect_cluster()
    trained = _train(request, places, say)
    first = _night(request, places, "first", say)
    fates = _change_catalogue(request, places, say)
    second = _night(request, places, "second", say)
    _analyse(places, say)
    _report(request, places, say)
    say(_what_next(places))
    return {
        "out": str(request.out),
        "report": str(places.report),
        "valid_f1": trained["valid"]["f1"],
        "first_night": first,
        "second_night": second,
        "fates": fates,
        "demo_seconds": round(time.monotonic() - started, 1),
    }


class _Places:
    """The files of a demo folder."""

    def __init__(self, out: Path) -> None:
        self.labelled = out / "labelled"
        self.run = out / "run"
        self.model = out / "run" / "model"
        self.catalogue = out / "catalogue"
        self.table = out / "table"
        self.report = out / "report.html"


def claim_folder(out: Path) -> None:
    """Make an empty folder, or empty an earlier demo's; a folder with other files is refused."""
    place = Storage.of(out)
    check_kind(place, DEMO)
    if out.is_dir() and any(out.iterdir()):
        if kind_of(place) != DEMO:
            raise ValueError(
                f"{out} holds files that no demo made, expected an empty folder; "
                "choose another --out"
            )
        shutil.rmtree(out)
    claim(place, DEMO)


def _train(request: DemoRequest, places: _Places, say: Say) -> dict[str, Any]:
    say(f"1/6 drawing {request.num_labelled} labelled products in {places.labelled}")
    labelled = DemoConfig(num_products=request.num_labelled, picture_size=64, seed=request.seed)
    write_splits(labelled, Storage.of(places.labelled))
    say(
        f"2/6 training, as: python jobs/train.py --recipe tiny --set '{SOURCES}' "
        f"--data {places.labelled} --out {places.run}"
    )
    return train(
        TrainRequest(
            recipe=load_recipe("tiny", [SOURCES, f"fit.epochs={request.epochs}"]),
            data=Storage.of(places.labelled),
            output=Storage.of(places.run),
        )
    )


def _catalogue(request: DemoRequest) -> DemoConfig:
    # Another seed, other products than those the model was trained on.
    return DemoConfig(num_products=request.num_catalogue, picture_size=64, seed=request.seed + 1)


def _night(request: DemoRequest, places: _Places, name: str, say: Say) -> dict[str, Any]:
    catalogue = places.catalogue / "part-00000.parquet"
    if name == "first":
        write_products(generate(_catalogue(request)), Storage.of(catalogue))
    number = {"first": 3, "second": 5}[name]
    say(
        f"{number}/6 {name} night, as: python jobs/extract_catalog.py --model {places.model} "
        f"--input {places.catalogue} --output {places.table}"
    )
    config = NightlyConfig(num_buckets=4)
    model = ModelFolder(str(places.model), precision=config.precision)
    job = NightlyJob(model, Storage.of(places.table), config)
    return job.run(NightlyRequest(inputs=(str(places.catalogue),), run_id=f"{name}-night"))


def _change_catalogue(request: DemoRequest, places: _Places, say: Say) -> dict[str, int]:
    """Write the second night's catalogue: some products changed, broken or gone."""
    rows = list(
        second_night(generate(_catalogue(request)), changed=0.03, broken=0.01, vanished=0.01)
    )
    fates: dict[str, int] = {}
    for row in rows:
        fates[row.fate.value] = fates.get(row.fate.value, 0) + 1
    kept = [row.product for row in rows if row.product is not None]
    write_products(kept, Storage.of(places.catalogue / "part-00000.parquet"))
    say(f"4/6 overnight: {', '.join(f'{count} {fate}' for fate, count in sorted(fates.items()))}")
    return fates


def _analyse(places: _Places, say: Say) -> None:
    say(f"6/6 analysis, as: python jobs/analyze.py --table {places.table} --query coverage")
    results = table(str(places.table))
    for query in (results.summary(), results.coverage(), results.reasons()):
        say(render(query))


def _report(request: DemoRequest, places: _Places, say: Say) -> None:
    report = build_report(
        ReportRequest(
            table=table(str(places.table)),
            products=ProductReader(Storage.of(places.catalogue)),
            model=ModelView.load(Storage.of(places.model)),
            num_cards=request.cards,
            title="Demo catalogue",
        )
    )
    places.report.write_bytes(report.html.encode())
    say(f"wrote {places.report}")


def _what_next(places: _Places) -> str:
    return "\n".join(
        [
            "",
            f"Open {places.report} in a browser. Then try:",
            f"  python jobs/evaluate.py --model {places.model} --data {places.labelled}",
            f"  python jobs/analyze.py --table {places.table} --query top-values",
            f'  python jobs/explain.py --model {places.model} --title "Red Cotton Shirt"',
            f"  python jobs/export.py --table {places.table} --out {places.table}-export",
        ]
    )
