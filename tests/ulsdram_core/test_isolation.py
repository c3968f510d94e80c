"""The core alone: no cluster, no lake, and an import that says so."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys, tempfile
BARRED = ("ray", "fsspec", "pyarrow", "polars", "deltalake", "s3fs", "pipelines", "jobs")

class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BARRED:
            raise ImportError(f"{name} is barred")

sys.meta_path.insert(0, Bar())
import ulsdram_core
names = [m.name for m in pkgutil.walk_packages(ulsdram_core.__path__, "ulsdram_core.")]
for name in names:
    importlib.import_module(name)

import torch
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.extractor import Extractor
from ulsdram_core.fit.fitting import FitConfig, fit
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, assemble
from ulsdram_core.text import TextProcessor
from ulsdram_core.encoders.tokenizer import build_tokenizer

torch.set_num_threads(1)
products = [p.to_product() for p in generate(DemoConfig(num_products=8, picture_size=32))]
config = ExtractorConfig.model_validate({
    "model": {"text_encoder": {"hidden": 16, "heads": 2},
              "image_encoder": {"architecture": "tiny", "width": 8}, "fusion": {"kind": "tir"}},
    "image": {"size": 32},
})
tokenizer = build_tokenizer([p.texts["title"] for p in products], vocab_size=300)
parts = assemble(config, LabelSet.from_products(products), tokenizer)
builder = ExampleBuilder(TextProcessor(tokenizer, config.text), parts.labels, config.image)
list(fit(parts, list(builder(products)), FitConfig(epochs=1)))
with tempfile.TemporaryDirectory() as folder:
    Extractor(parts).save(folder + "/model")
    found = Extractor.load(folder + "/model").extract(products)
assert len(found) == 8
assert not set(BARRED) & {name.partition(".")[0] for name in sys.modules}
print(len(names))
"""


def test_every_module_works_with_ray_and_the_lake_barred():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
