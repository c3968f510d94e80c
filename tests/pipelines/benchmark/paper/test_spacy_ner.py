"""spaCy as a peer, in an interpreter of its own: a helper module of other tests has the name of
one of its packages.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.benchmark.paper.spacy_ner import is_installed
from pipelines.demo.tables import write_products
from pipelines.lake.storage import Storage
from ulsdram_core.demo import DemoConfig, generate

ROOT = Path(__file__).resolve().parents[4]
pytestmark = pytest.mark.skipif(not is_installed(), reason="spaCy is not installed (peers)")
SCRIPT = """
import json, sys
from pathlib import Path
from pipelines.benchmark.data import BenchmarkData
from pipelines.benchmark.plan import plan_run
from pipelines.benchmark.runner import run
from pipelines.benchmark.settings import load_benchmark
from pipelines.benchmark.source import Source

folder, epochs = Path(sys.argv[1]), sys.argv[2]
config = load_benchmark(overrides=[f"settings.epochs={epochs}"], encoders={})
data = BenchmarkData(Source(str(folder), config), folder / "cache")
print(json.dumps(run(plan_run(config, "spacy", seed=0), data)))
"""
UNITS = """
import json, sys
import spacy
from pipelines.benchmark.spacy_ner import _Tokenizer
nlp = spacy.blank("xx")
docs = [_Tokenizer(nlp.vocab, "word")(text) for text in json.loads(sys.argv[1])]
print(json.dumps([[doc.text, [[t.idx, t.text] for t in doc if not t.is_space]] for doc in docs]))
"""


def run_script(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tokens_are_units_at_their_own_offsets():
    from ulsdram_core.text import find_units

    texts = ["Red  shirt-dress, 10.5cm ", " a\tb", "\u7ea2\u8272 X1"]
    for text, (rebuilt, tokens) in zip(texts, run_script(UNITS, json.dumps(texts)), strict=True):
        assert rebuilt == text
        assert [(i, i + len(t)) for i, t in tokens] == list(find_units(text))


@pytest.fixture
def by_heart(tmp_path):
    rows = list(generate(DemoConfig(num_products=64, picture_size=32)))
    for name in ("train", "test"):
        write_products(rows, Storage.of(tmp_path / name / "part-0.parquet"))
    return tmp_path


def test_a_run_can_be_stored(by_heart):
    result = run_script(SCRIPT, by_heart, 1)
    assert len(result["losses"]) == 2
    assert result["cost"]["parameters"] > 100_000
    assert result["figures"]["cls_f1"] is None


@pytest.mark.slow
def test_it_learns_64_products_by_heart(by_heart):
    assert run_script(SCRIPT, by_heart, 25)["figures"]["tag_f1"] > 0.95
