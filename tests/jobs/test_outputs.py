"""No job writes into another job's folder or into what it reads."""

import pytest

from pipelines.benchmark.eclip.job import TasksRequest, run_tasks
from pipelines.benchmark.paper.job import BenchmarkRequest
from pipelines.benchmark.paper.settings import load_benchmark
from pipelines.benchmark.paper.source import DEMO, Source
from pipelines.command.terminal import Style
from pipelines.compare.job import CompareRequest, run_comparison
from pipelines.demo.run import DemoRequest, run_demo
from pipelines.evaluate.job import EvaluateRequest, evaluate
from pipelines.lake.kinds import TABLES, claim
from pipelines.lake.storage import Storage


def benchmark(place, data) -> None:
    source = Source(data=data or DEMO, config=load_benchmark(encoders={}))
    BenchmarkRequest(suite="table2", source=source, out=place).check()


def tasks(place, data) -> None:
    models = {"a": Storage.of("model")}
    run_tasks(
        TasksRequest(data=Storage.of(data or "data"), output=Storage.of(place), models=models)
    )


def comparison(place, _data) -> None:
    request = CompareRequest(tables=("one", "two"), out=Storage.of(place / "x.json"))
    run_comparison(request, style=Style.of("never"))


def evaluation(place, data) -> None:
    out = Storage.of(place / "x.json")
    evaluate(EvaluateRequest(Storage.of("model"), Storage.of(data or "data"), output=out))


def demo(place, _data) -> None:
    run_demo(DemoRequest(out=place), print)


JOBS = (benchmark, tasks, comparison, evaluation, demo)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("below", [".", "extractions/x"])
def test_into_a_folder_of_result_tables(tmp_path, job, below):
    claim(Storage.of(tmp_path / "table"), TABLES)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="folder of result tables"):
        job(tmp_path / "table" / below, None)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("job", [benchmark, tasks, evaluation])
def test_into_the_data(tmp_path, job):
    (tmp_path / "data" / "test").mkdir(parents=True)
    with pytest.raises(ValueError, match="in one another"):
        job(tmp_path / "data" / "out", str(tmp_path / "data"))
    assert list(tmp_path.rglob("*.json")) == []
