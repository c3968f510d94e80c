"""spaCy's NER, the peer from outside: trained on the same products, scored by the same metrics."""

import importlib.util
import random
import time
from collections.abc import Iterator
from typing import Any

from pipelines.benchmark.paper.data import BenchmarkData
from pipelines.benchmark.paper.plan import RunPlan
from pipelines.benchmark.paper.score import score_extractions
from ulsdram_core.schema import Extraction, GoldSpan, Product, Status, Value
from ulsdram_core.text import find_units


def is_installed() -> bool:
    """Whether the optional extra `peers` is there."""
    return importlib.util.find_spec("spacy") is not None


def run_spacy(plan: RunPlan, data: BenchmarkData) -> dict[str, Any]:
    """Train a blank pipeline with an NER component; score its entities as values."""
    import spacy
    from spacy.util import fix_random_seed

    fix_random_seed(plan.seed)
    nlp = spacy.blank("xx")  # no language's rules: the texts may be in any
    nlp.tokenizer = _Tokenizer(nlp.vocab, plan.extractor.text.unit)
    nlp.add_pipe("ner")
    examples = [example for product in data.train for example in _examples(nlp, product)]
    nlp.initialize(lambda: examples)
    started = time.monotonic()
    losses = _train(nlp, examples, plan)
    trained = time.monotonic()
    extractions = [_extract(nlp, product) for product in data.test]
    seconds = time.monotonic() - trained
    score = score_extractions(data.test, extractions, data.category_attributes)
    size = _num_parameters(nlp)
    return {
        "figures": score.figures(has_spans=True, has_head=False),
        "products": score.per_product(),
        "sweep": None,
        "losses": losses,
        "cost": {
            "parameters": size,
            "trained_parameters": size,
            "train_minutes": (trained - started) / 60,
            "products_per_second": len(data.test) / max(seconds, 1e-9),
        },
    }


def _examples(nlp: Any, product: Product) -> Iterator[Any]:
    """Yield one example per text; of overlapping values spaCy can learn only the longest."""
    from spacy.training import Example
    from spacy.util import filter_spans

    for source, text in product.texts.items():
        doc, reference = nlp.make_doc(text), nlp.make_doc(text)
        if len(doc):
            spans = [_char_span(reference, gold) for gold in product.gold_for(source)]
            reference.ents = filter_spans([span for span in spans if span is not None])
            yield Example(doc, reference)


def _train(nlp: Any, examples: list[Any], plan: RunPlan) -> list[float]:
    from spacy.util import minibatch

    losses = []
    order = random.Random(plan.seed)
    for _ in range(plan.fit.epochs):
        order.shuffle(examples)
        lost: dict[str, float] = {}
        for batch in minibatch(examples, plan.fit.batch_size):
            nlp.update(batch, losses=lost, drop=0.2)
        losses.append(float(lost["ner"]) / len(examples))
    return losses


class _Tokenizer:
    """Cuts texts into the units of all systems, so that every gold span can be an entity."""

    def __init__(self, vocab: Any, unit: Any) -> None:
        self.vocab = vocab
        self.unit = unit

    def __call__(self, text: str) -> Any:
        from spacy.tokens import Doc

        words: list[str] = []
        spaces: list[bool] = []
        last = 0
        for start, end in find_units(text, self.unit):
            gap = text[last:start]
            if words and gap == " ":
                spaces[-1] = True
            elif gap:  # other white space is a token of its own, so that offsets stay
                words.append(gap)
                spaces.append(False)
            words.append(text[start:end])
            spaces.append(False)
            last = end
        if text[last:]:
            words.append(text[last:])
            spaces.append(False)
        return Doc(self.vocab, words=words, spaces=spaces)


def _char_span(doc: Any, gold: GoldSpan) -> Any:
    return doc.char_span(gold.start, gold.end, label=gold.attribute, alignment_mode="expand")


def _extract(nlp: Any, product: Product) -> Extraction:
    values = [
        Value(ent.label_, ent.text, source, ent.start_char, ent.end_char, 1.0)
        for source, text in product.texts.items()
        for ent in nlp(text).ents
    ]
    return Extraction(product.product_id, Status.OK, None, tuple(values))


def _num_parameters(nlp: Any) -> int:
    total = 0
    for _, component in nlp.pipeline:
        for node in component.model.walk():
            total += sum(
                node.get_param(name).size for name in node.param_names if node.has_param(name)
            )
    return int(total)
