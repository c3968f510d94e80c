import pytest

from pipelines.lake.storage import Storage
from pipelines.nightly.work.model_folder import ModelFolder

FOUND = {"model_id": "abc", "sources": ["title"], "image": None}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_facts_are_remembered_for_these_files(folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ModelFolder, "_describe", lambda _: asked.append(1) or dict(FOUND))
    model, cache = ModelFolder(str(folder)), Storage.of(tmp_path / "cache")
    assert [model.facts(cache).model_id for _ in range(2)] == ["abc", "abc"]
    assert len(asked) == 1
    (folder / "config.json").write_text('{"other": 1}')
    assert model.facts(cache).model_id == "abc"
    assert len(asked) == 2


def test_a_model_replaced_while_it_is_read_is_not_remembered(folder, tmp_path, monkeypatch):
    def describe(_):
        (folder / "config.json").write_text('{"replaced": true}')
        return dict(FOUND)

    monkeypatch.setattr(ModelFolder, "_describe", describe)
    cache = Storage.of(tmp_path / "cache")
    with pytest.raises(ValueError, match="changed while it was read"):
        ModelFolder(str(folder)).facts(cache)
    assert not cache.names()
