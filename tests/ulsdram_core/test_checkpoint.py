"""The model directory: whole or refused, replaced at once or not at all."""

import json
import os
import pickle
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from ulsdram_core import checkpoint
from ulsdram_core.checkpoint import load_model, save_model
from ulsdram_core.errors import CheckpointError
from ulsdram_core.extractor import Extractor
from ulsdram_core.parts import assemble

FILES = {
    "config.json", "model.safetensors", "labels.json", "metrics.json", "recipe.toml", "README.md",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def saved(parts_of, tmp_path):
    """A model directory and the parts in it."""
    parts = parts_of("tir")
    parts.metrics = {"tag_f1": 0.5}
    parts.recipe, parts.card = 'name = "tiny"\n', "# A model\n"
    return save_model(parts, tmp_path / "model"), parts


@pytest.mark.parametrize(
    "kinds",
    [
        ("tir",), ("concat", "none", "softmax"), ("self_attention", "dynet", "crf"),
        ("gated", "bert"), ("none", "prototype"),
    ],
)  # fmt: skip
def test_round_trip(extractor_of, products, tmp_path, kinds):
    extractor = extractor_of(*kinds, range={"threshold": 0.3}, merge_repeats=True)
    path = extractor.save(tmp_path / "model")
    loaded = Extractor.load(path, precision="fp32")
    assert loaded.model_id == extractor.model_id
    assert loaded.config == extractor.config
    assert loaded.labels == extractor.labels
    assert loaded.extract(products) == extractor.extract(products)
    assert any(found.values for found in loaded.extract(products))


def test_a_trained_model_survives_too(demo_extractor, demo_products, tmp_path):
    path = demo_extractor.save(tmp_path / "deep" / "er" / "model")
    loaded = Extractor.load(str(path), precision="fp32")
    assert loaded.model_id == demo_extractor.model_id
    assert loaded.extract(demo_products) == demo_extractor.extract(demo_products)


def test_the_directory_holds_what_it_promises(saved):
    path, parts = saved
    assert {p.name for p in path.iterdir()} >= FILES
    assert [p.name for p in path.parent.iterdir()] == ["model"], "no draft is left behind"
    loaded = load_model(path)
    assert (loaded.metrics, loaded.recipe, loaded.card) == (
        parts.metrics, parts.recipe, parts.card
    )  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o755
    assert (path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_loads_where_the_encoders_checkpoint_is_gone(config_of, labels, tokenizer, tmp_path):
    torch.manual_seed(0)
    encoder = tmp_path / "encoder"
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    rows = len(tokenizer) + 9  # as in checkpoints whose rows are rounded up
    bert = BertModel(BertConfig(vocab_size=rows, intermediate_size=32, **sizes))
    bert.save_pretrained(encoder)
    config = config_of("none", model={"text_encoder": {"name": str(encoder)}})
    parts = assemble(config, labels, tokenizer)
    path = save_model(parts, tmp_path / "model")
    shutil.rmtree(encoder)
    assert load_model(path).model_id() == parts.model_id()


def test_an_encoder_stays_as_another_release_described_it(saved):
    path, parts = saved
    config = json.loads((path / "config.json").read_text())
    architecture = config["model"]["text_encoder"]["architecture"]
    architecture["transformers_version"] = "4.0.0"
    del architecture["is_decoder"]
    (path / "config.json").write_text(json.dumps(config))
    loaded = load_model(path)
    assert loaded.config.model.text_encoder.architecture == architecture
    assert loaded.model_id() != parts.model_id()
    assert load_model(save_model(loaded, path)).model_id() == loaded.model_id()


def test_pickles_are_refused(saved, tmp_path):
    path, _ = saved
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*never loaded"):
        Extractor.load(path)
    (path / "pytorch_model.bin").rename(path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Extractor.load(path)
    assert not (tmp_path / "sprung").exists()


class _Trap:
    """Runs code when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_versions_are_refused(saved, version):
    path, _ = saved
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"format_version": version}))
    with pytest.raises(CheckpointError, match=r"format_version .*, expected 1; use the release"):
        Extractor.load(path)


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def drop_weight(path):
    state = load_file(path)
    del state["head.score.bias"]
    save_file(state, path)


def shrink_weight(path):
    state = load_file(path)
    state["head.score.bias"] = state["head.score.bias"][:-1].contiguous()
    save_file(state, path)


def forget_label(path):
    labels = json.loads(path.read_text())
    path.write_text(json.dumps(labels | {"attributes": labels["attributes"][:-1]}))


def change_config(**changes):
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


DAMAGES = {
    "weights cut": ("model.safetensors", cut, "not a whole safetensors file"),
    "weights empty": ("model.safetensors", lambda p: p.write_bytes(b""), "not a whole"),
    "weights missing": ("model.safetensors", lambda p: p.unlink(), "holds no model.safetensors"),
    "one weight missing": ("model.safetensors", drop_weight, "head.score.bias"),
    "one weight too short": ("model.safetensors", shrink_weight, "head.score.bias"),
    "config cut": ("config.json", cut, "cannot be read as a JSON object"),
    "config no object": ("config.json", lambda p: p.write_text("[]"), "JSON object"),
    "config not text": ("config.json", lambda p: p.write_bytes(b"\xff\xfe{"), "JSON object"),
    "config missing": ("config.json", lambda p: p.unlink(), "holds no config.json"),
    "config of another release": ("config.json", change_config(extra=1), "extra"),
    "labels cut": ("labels.json", cut, "labels.json"),
    "labels missing": ("labels.json", lambda p: p.unlink(), "labels.json"),
    "fewer labels": ("labels.json", forget_label, "labels.json: category_attributes|not in"),
    "tokenizer cut": ("tokenizer.json", cut, "tokenizer that cannot be read"),
    "tokenizer missing": ("tokenizer.json", lambda p: p.unlink(), "tokenizer.json"),
    "metrics cut": ("metrics.json", cut, "metrics.json"),
}


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_one_clear_line(saved, name, damage, words):
    path, _ = saved
    damage(path / name)
    with pytest.raises(CheckpointError, match=words) as caught:
        Extractor.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_weights_that_do_not_fit_the_labels(saved):
    path, parts = saved
    wider = parts.labels.model_copy(update={"attributes": (*parts.labels.attributes, "more")})
    (path / "labels.json").write_text(wider.model_dump_json())
    with pytest.raises(CheckpointError, match="does not fit"):
        Extractor.load(path)


def test_what_is_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="is not a folder"):
        Extractor.load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        Extractor.load(tmp_path / "empty")


def test_a_model_replaces_a_model(saved, parts_of):
    path, old = saved
    new = parts_of("none")
    save_model(new, path)
    assert load_model(path).model_id() == new.model_id() != old.model_id()
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_a_model_replaces_a_model_where_names_cannot_be_exchanged(saved, parts_of, monkeypatch):
    path, _ = saved
    monkeypatch.setattr(checkpoint, "exchange_folders", lambda *_: False)
    new = parts_of("none")
    save_model(new, path)
    assert load_model(path).model_id() == new.model_id()
    assert [p.name for p in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("names", [["notes.txt"], ["config.json", "model.safetensors"]])
def test_other_folders_are_not_overwritten(parts_of, tmp_path, names):
    """Neither somebody's notes nor somebody's pretrained checkpoint."""
    folder = tmp_path / "precious"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    with pytest.raises(CheckpointError, match="holds files but no model"):
        save_model(parts_of("none"), folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_files_are_not_overwritten_and_empty_folders_are_used(parts_of, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CheckpointError, match="choose another place"):
        save_model(parts_of("none"), tmp_path / "file")
    (tmp_path / "empty").mkdir()
    save_model(parts_of("none"), tmp_path / "empty")
    load_model(tmp_path / "empty")


def test_a_failure_while_writing_leaves_the_old_model(saved, parts_of, monkeypatch):
    path, old = saved

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_tokenizer", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(parts_of("none"), path)
    monkeypatch.undo()
    assert load_model(path).model_id() == old.model_id()
    assert [p.name for p in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("milliseconds", [5, 23, 61, 110])
def test_a_killed_writer_leaves_a_whole_model(saved, parts_of, milliseconds):
    path, old = saved
    new = parts_of("none")
    whole = {old.model_id(), new.model_id()}
    writer = os.fork()
    if not writer:
        while True:
            save_model(new, path)
            save_model(old, path)
    time.sleep(milliseconds / 1000)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    assert load_model(path).model_id() in whole
    save_model(new, path)
    assert load_model(path).model_id() == new.model_id()
