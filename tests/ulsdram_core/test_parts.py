"""Assembly: what fits, what is refused, and what makes a model another one."""

import pytest
import torch

from ulsdram_core.errors import LabelError
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, Thresholds, assemble


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
