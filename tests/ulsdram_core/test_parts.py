"""Assembly: what fits, what is refused, and what makes a model another one."""

import json
from dataclasses import replace

import pytest
import torch
from pydantic import Field

from ulsdram_core.errors import LabelError
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.fusion import FusionConfig
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.parts import ExtractorConfig, Thresholds, assemble, canonical
from ulsdram_core.text import TextConfig


def test_model_id_tells_weights_labels_thresholds_and_preprocessing_apart(
    parts_of, labels, tokenizer
):
    base = parts_of("tir")
    ids = [base.model_id()]
    for change in (
        {"thresholds": {"attribute": {"color": 0.7}}},
        {"thresholds": {"value": {"color": 0.7}}},
        {"range": {"threshold": 0.4}},
        {"text": {"sources": ("description", "title")}},
        {"image": {"size": 32, "max_pixels": 999}},
        {"merge_repeats": True},
    ):
        ids.append(parts_of("tir", **change).model_id())
    swapped = labels.model_copy(update={"attributes": labels.attributes[::-1]})
    torch.manual_seed(0)
    other_labels = assemble(base.config, swapped, tokenizer, random_init=True)
    other_labels.model.load_state_dict(base.model.state_dict())
    ids.append(other_labels.model_id())
    nudged = parts_of("tir")
    nudged.model.head.score.bias.data[0] += 1e-6
    ids.append(nudged.model_id())
    assert len(set(ids)) == len(ids)
    assert parts_of("tir").model_id() == ids[0]
    assert len(ids[0]) == 16


class LaterText(TextConfig):
    """The texts' config of a later release."""

    fold_case: bool = False
    stop_words: tuple[str, ...] = Field(default_factory=tuple)


class LaterConfig(ExtractorConfig):
    """The config of a later release, with fields of its own and in a section."""

    text: LaterText = Field(default_factory=LaterText)
    voting: str = "none"


@pytest.mark.parametrize("changes", [{}, {"text": {"max_pieces": 64}}], ids=["absent", "given"])
def test_a_field_that_a_release_adds_leaves_the_model_id(parts_of, changes):
    parts = parts_of("tir", **({"text": {}} | changes))
    known = parts.model_id()
    stored = json.loads(parts.config.model_dump_json())

    def later(**update):
        return replace(parts, config=LaterConfig.model_validate(stored | update)).model_id()

    assert later() == known
    assert later(voting="none") == known
    assert later(text=stored["text"] | {"fold_case": False, "stop_words": []}) == known
    assert later(voting="most") != known
    assert later(text=stored["text"] | {"fold_case": True}) != known
    assert later(text=stored["text"] | {"stop_words": ["the"]}) != known


def test_stated_defaults_leave_the_model_id(parts_of):
    parts = parts_of("none")
    short = parts.config.model_dump(mode="json", exclude_defaults=True)
    whole = parts.config.model_dump(mode="json")
    assert len(short) < len(whole)
    ids = {
        replace(parts, config=ExtractorConfig.model_validate(stated)).model_id()
        for stated in (short, whole)
    }
    assert ids == {parts.model_id()}


def test_a_section_is_told_from_its_own_defaults():
    # The model's default fusion is none, a fusion's own default kind another one.
    plain, other = (
        ModelConfig.model_construct(fusion=fusion)
        for fusion in (FusionConfig(kind="none"), FusionConfig())
    )
    assert canonical(plain) != canonical(other)
    assert FusionConfig() != FusionConfig(kind="none")


RELEASED = {
    "range": {
        "threshold": 0.5, "max_attributes": 64, "training": "gold_and_wrong", "max_wrong": 4,
        "wrong": "best",
    },
    "image": {"size": 224, "max_pixels": 50_000_000, "max_bytes": 20_000_000},
    "text": {
        "sources": ["title"], "unit": "word", "max_pieces": 128, "overlap_pieces": 32,
        "max_chars": 100_000,
    },
    "model.text_encoder": {
        "name": "tiny", "hidden": 128, "layers": 2, "vectors": None, "heads": 4, "dropout": None,
        "gradient_checkpointing": False, "attention": "sdpa",
    },
    "model.image_encoder": {
        "architecture": "resnet152", "weights": "none", "width": 32, "freeze_batch_norm": True,
        "channels_last": True, "gradient_checkpointing": False, "mean": None, "std": None,
    },
    "model.fusion": {"kind": "tir", "normalize_regions": False, "heads": 4, "dim": 200},
    "model.fusion.tir": {"dim": 200, "attention": "linear", "init_std": 0.01, "pooled": False},
    "model.reader": {"kind": "none", "dim": 64},
    "model.policy": {"kind": "prototype", "dynet_rank": None},
    "model.tagger": {"kind": "bilstm_crf", "hidden": None, "dropout": 0.2},
    "model": {"head": "released", "unified": True},
    "": {"scope_to_category": False, "merge_repeats": False},
}  # fmt: skip
"""Defaults that a model's id leaves out: another one would give known models another id."""


@pytest.mark.parametrize(("section", "fields"), RELEASED.items(), ids=RELEASED)
def test_released_defaults_stay(section, fields):
    given = {"model": {"image_encoder": {}, "fusion": {}}, "image": {}}
    found = ExtractorConfig.model_validate(given).model_dump(mode="json")
    for name in filter(None, section.split(".")):
        found = found[name]
    assert {name: found[name] for name in fields} == fields


def test_model_id_ignores_memory_layout_and_metrics(parts_of):
    parts = parts_of("tir")
    known = parts.model_id()
    parts.model.to(memory_format=torch.channels_last)
    parts.metrics, parts.card = {"tag_f1": 1.0}, "# Card"
    assert parts.model_id() == known


def test_windows_longer_than_the_encoders_positions_are_refused(parts_of):
    with pytest.raises(ValueError, match=r"text.max_pieces is 513, expected at most 512"):
        parts_of("none", text={"max_pieces": 513})


def test_thresholds_of_unknown_attributes_are_refused(parts_of):
    for kind in ("attribute", "value"):
        with pytest.raises(LabelError, match="thresholds name 'colour', which is not among the 5"):
            parts_of("none", thresholds={kind: {"colour": 0.5}})


def test_categories_must_be_known_to_scope_to_them(config_of, tokenizer):
    labels = LabelSet(attributes=("color",))
    with pytest.raises(LabelError, match="scope_to_category is set"):
        assemble(config_of("none", scope_to_category=True), labels, tokenizer)


def test_thresholds_are_probabilities():
    with pytest.raises(ValueError, match=r"threshold of 'color' is 1.5, expected 0 to 1"):
        Thresholds(attribute={"color": 1.5})


@pytest.mark.parametrize(
    ("fusion", "image"), [("tir", None), ("none", {"size": 32})], ids=["blind", "needless"]
)
def test_pictures_are_read_exactly_where_they_are_seen(config_of, fusion, image):
    with pytest.raises(ValueError, match="expected both or neither"):
        config_of(fusion, image=image)


def test_resolved_config_survives_json(parts_of):
    config = parts_of("tir").config
    assert ExtractorConfig.model_validate_json(config.model_dump_json()) == config
    assert config.model.text_encoder.architecture["model_type"] == "bert"


def test_names_of_attributes_become_words(parts_of):
    parts = parts_of("none", "bert")
    ids, mask = parts.model._names
    words = [parts.tokenizer.decode(row[keep]) for row, keep in zip(ids, mask, strict=True)]
    assert words[3] == "[CLS] sleeve length [SEP]"
