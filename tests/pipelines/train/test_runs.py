"""What marks a run as finished, and what tells one run from another."""

import json
from functools import partial

import fsspec
import pytest

from pipelines.lake.storage import Storage
from pipelines.nightly.table.lock import LockConfig, TableBusyError
from pipelines.train.runs import finished_summary, put_folder, sole_owner
from ulsdram_core.checkpoint import load_model, save_model
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.errors import CheckpointError
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import ExtractorConfig, assemble

MODEL = {
    "text_encoder": {"hidden": 8, "layers": 1, "heads": 2},
    "policy": {"kind": "none"},
    "head": "none",
}
NUM_FILES = 8


class KilledError(Exception):
    """What a process does not survive."""


@pytest.fixture
def output():
    """An empty folder of an object store."""
    fsspec.filesystem("memory").store.clear()
    yield Storage.of("memory://lake/run")
    fsspec.filesystem("memory").store.clear()


def parts_of(fingerprint):
    tokenizer = build_tokenizer(["red shirt"], vocab_size=50)
    labels = LabelSet(attributes=("color",))
    parts = assemble(ExtractorConfig.model_validate({"model": MODEL}), labels, tokenizer)
    parts.metrics = {"fingerprint": fingerprint, "model_id": parts.model_id()}
    return parts


def put(parts, place, scratch, monkeypatch, *, writes=NUM_FILES):
    """Put the model; the store takes that many files and then the process is gone."""
    fs = type(fsspec.filesystem("memory"))
    whole, written = fs.pipe_file, []

    def pipe_file(self, path, *args, **kwargs):
        if len(written) == writes:
            raise KilledError
        written.append(path)
        return whole(self, path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(fs, "pipe_file", pipe_file)
        put_folder(partial(save_model, parts), place, scratch)
    return written


def test_a_model_in_an_object_store_is_finished_by_its_last_file(output, tmp_path, monkeypatch):
    parts = parts_of("f1")
    written = put(parts, output.join("model"), tmp_path, monkeypatch)
    assert len(written) == NUM_FILES
    assert [path.rsplit("/", 1)[-1] for path in written[-2:]] == ["config.json", "metrics.json"]
    found = finished_summary(output, "f1")
    assert found == {"model_id": parts.model_id(), "already_trained": True}
    assert finished_summary(output, "f2") is None


@pytest.mark.parametrize("writes", range(NUM_FILES))
@pytest.mark.parametrize("old", [None, "f1", "f2"])
def test_a_model_written_in_part_does_not_count(output, tmp_path, monkeypatch, writes, old):
    place = output.join("model")
    if old is not None:
        put(parts_of(old), place, tmp_path, monkeypatch)
    new = parts_of("f2")
    with pytest.raises(KilledError):
        put(new, place, tmp_path, monkeypatch, writes=writes)
    assert finished_summary(output, "f1") is None
    assert finished_summary(output, "f2") is None
    if place.is_folder() and writes < NUM_FILES - 1:
        with pytest.raises(CheckpointError, match="holds no"), place.local_copy() as folder:
            load_model(folder)
    put(new, place, tmp_path, monkeypatch)
    assert finished_summary(output, "f2") == {"model_id": new.model_id(), "already_trained": True}
    with place.local_copy() as folder:
        assert load_model(folder).model_id() == new.model_id()


def test_a_model_whose_weights_are_gone_does_not_count(tmp_path):
    output = Storage.of(tmp_path)
    put_folder(partial(save_model, parts_of("f1")), output.join("model"), tmp_path / "scratch")
    assert json.loads(output.join("model", "metrics.json").read_bytes())["fingerprint"] == "f1"
    assert finished_summary(output, "f1") is not None
    output.join("model", "model.safetensors").delete()
    assert finished_summary(output, "f1") is None


def test_two_trainings_do_not_share_an_output(tmp_path):
    output, config = Storage.of(tmp_path), LockConfig(beat_seconds=0.1, stale_seconds=5)
    with sole_owner(output, config):
        second = sole_owner(output, config)
        with pytest.raises(TableBusyError, match="run of training"):
            second.__enter__()
    assert output.names() == []
