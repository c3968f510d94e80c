"""2,000 attributes and a head that selects them all: what one step may hold at once."""

import json
import subprocess
import sys

SCRIPT = """
import json, resource, sys
import numpy as np
import torch
from ulsdram_core.batch import Example, collate
from ulsdram_core.labels import AlignedSpan, LabelSet
from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.pairs import RangeConfig, predicted_pairs
from ulsdram_core.parts import ExtractorConfig, assemble
from ulsdram_core.text import TextProcessor
from ulsdram_core.encoders.tokenizer import build_tokenizer

torch.set_num_threads(1)
text = "soft red cotton shirt with long sleeves " * 4
tokenizer = build_tokenizer([text], vocab_size=200)
config = ExtractorConfig.model_validate(
    {"model": {"text_encoder": {"hidden": 128}, "tagger": {"kind": "bilstm_crf"}}}
)

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def build(num_attributes):
    labels = LabelSet(attributes=tuple(f"a{i}" for i in range(num_attributes)))
    parts = assemble(config, labels, tokenizer)
    window = TextProcessor(tokenizer, config.text).encode({"title": text})[0]
    parts.model.head.score.bias.data.fill_(5.0)
    gold = tuple(AlignedSpan(a, a, a + 1) for a in range(3))
    return parts, collate([Example(window, (), gold)] * 16)

def train(num_attributes, training):
    parts, batch = build(num_attributes)
    loss = ExtractionLoss(LossConfig(), RangeConfig(training=training))(parts.model.train(), batch)
    loss.total.backward()
    return peak_mib()

def extract(num_attributes):
    parts, batch = build(num_attributes)
    with torch.inference_mode():
        parts.model.eval()(batch, lambda logits: predicted_pairs(logits, 0.5, most=64))
    return peak_mib()

train(26, "gold_and_wrong")
print(json.dumps({
    "at 26": train(26, "gold_and_wrong"),
    "at 2,000": train(2000, "gold_and_wrong"),
    "at 2,000 as released": train(2000, "released"),
    "extracting at 2,000": extract(2000),
}))
"""


def test_2000_attributes_take_little_more_memory_than_26():
    """The LSTM's gates of all 32,000 pairs would take 3.4 GiB, with their gradients 10."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    sys.stdout.write(f"peak MiB: {peaks}\n")
    base = peaks["at 26"]
    assert peaks["at 2,000"] < base + 200, peaks
    assert peaks["at 2,000 as released"] < base + 200, peaks
    assert peaks["extracting at 2,000"] < base + 1000, peaks
