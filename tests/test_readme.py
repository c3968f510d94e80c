"""What README shows must work as shown."""

import re
from pathlib import Path

import pytest
import torch

from ulsdram_core.checkpoint import save_model
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.fitting import FitConfig, fit
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, assemble
from ulsdram_core.text import TextProcessor

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A text-only model that has learned a little."""
    config = DemoConfig(num_products=80, with_pictures=False, ambiguous=0.0)
    products = [product.to_product() for product in generate(config)]
    tokenizer = build_tokenizer([product.texts["title"] for product in products], 500)
    labels = LabelSet.from_products(products)
    torch.manual_seed(0)
    encoder = {"text_encoder": {"hidden": 32, "layers": 1}, "policy": {"kind": "none"}}
    parts = assemble(
        ExtractorConfig.model_validate({"model": {**encoder, "head": "none"}}), labels, tokenizer
    )
    examples = list(
        ExampleBuilder(TextProcessor(tokenizer, parts.config.text), labels, None)(products)
    )
    for _ in fit(parts, examples, FitConfig(epochs=12, batch_size=8, optim={"text_rate": 3e-3})):
        pass
    return save_model(parts, tmp_path_factory.mktemp("readme") / "model")


def test_the_snippet_prints_values_in_at_most_ten_lines(model, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    code = [line for line in snippet.splitlines() if line.strip()]
    assert len(code) <= 10
    exec(snippet.replace("demo-out/run/model", str(model)), {})
    printed = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"\w+ .+ \d+ \d+ [01]\.\d+", line) for line in printed)


@pytest.mark.parametrize("script", sorted(set(re.findall(r"python (jobs/\w+\.py)", README))))
def test_every_named_job_is_there_and_executable(script):
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")


def test_every_named_make_target_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE)) <= targets
