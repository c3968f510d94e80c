"""The model directory: safetensors and JSON, versioned, written whole or not at all.

config.json, model.safetensors, labels.json, tokenizer files, metrics.json, recipe.toml, README.md
"""

import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ulsdram_core.encoders.tokenizer import load_tokenizer, save_tokenizer
from ulsdram_core.errors import CheckpointError
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import FORMAT_VERSION, ExtractorConfig, ModelParts, assemble

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
LABELS = "labels.json"
METRICS = "metrics.json"
RECIPE = "recipe.toml"
CARD = "README.md"
Document = TypeVar("Document", bound=BaseModel)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def save_model(parts: ModelParts, path: str | Path) -> Path:
    """Write a model directory; an existing one is replaced only once the new one is whole."""
    contents = Contents(
        parts.model,
        parts.tokenizer,
        documents={
            CONFIG: parts.config.model_dump(mode="json"),
            LABELS: parts.labels.model_dump(mode="json"),
            METRICS: parts.metrics,
        },
        texts={RECIPE: parts.recipe, CARD: parts.card},
    )
    return write_folder(Path(path), contents)


@dataclass(frozen=True)
class Contents:
    """What goes into a model directory; an older one is known by the names of its documents."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    documents: Mapping[str, object]
    texts: Mapping[str, str]


def write_folder(path: Path, contents: Contents) -> Path:
    """Write a model directory of any kind, whole or not at all."""
    _check_target(path, contents.documents)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _write_contents(contents, draft)
        _swap(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def _write_contents(contents: Contents, folder: Path) -> None:
    state = contents.model.state_dict()
    save_file({name: t.detach().cpu().contiguous() for name, t in state.items()}, folder / WEIGHTS)
    os.chmod(folder / WEIGHTS, 0o644)  # some releases of safetensors write it for the owner only
    save_tokenizer(contents.tokenizer, folder)
    for name, document in contents.documents.items():
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    for name, text in contents.texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def check_model_target(path: Path) -> None:
    """Refuse a place where save_model would not write: one that holds other files."""
    _check_target(path, (CONFIG, LABELS, METRICS))


def _check_target(path: Path, documents: Iterable[str]) -> None:
    # A pretrained checkpoint, too, holds a config.json and a model.safetensors.
    is_model = all((path / name).is_file() for name in (WEIGHTS, *documents))
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not is_model):
        raise CheckpointError(
            f"{path} holds files but no model, expected a model directory or nothing; "
            "choose another place"
        )


def _swap(draft: Path, path: Path) -> None:
    """Put the draft in the model's place; afterwards the draft, if any, is the old model."""
    os.chmod(draft, 0o755)  # mkdtemp makes it private
    if not path.exists():
        draft.rename(path)
    elif not exchange_folders(draft, path):
        old = path.with_name(f".{path.name}.old-{os.getpid()}")
        path.rename(old)
        draft.rename(path)
        shutil.rmtree(old)


def exchange_folders(one: Path, other: Path) -> bool:
    """Swap two folders' names at once; False where the system cannot.

    With two renames, a process killed between them would leave no model.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <linux/fs.h>
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def load_model(path: str | Path) -> ModelParts:
    """Read a model directory; nothing in it is ever executed."""
    folder = Path(path)
    check_folder(folder)
    config = read_config(folder)
    labels = read_document(LabelSet, folder / LABELS)
    tokenizer = read_tokenizer(folder)
    with fitting_parts(folder):
        parts = assemble(config, labels, tokenizer, random_init=True)
    fill_parts(parts, folder)
    return parts


class Parts(Protocol):
    """A model of any kind with what is noted about it."""

    metrics: dict[str, object]
    recipe: str
    card: str

    @property
    def model(self) -> nn.Module:
        """What the weights belong to."""


def fill_parts(parts: Parts, folder: Path) -> None:
    """Load a model directory's weights and notes into parts that its config described."""
    fill_weights(parts.model, folder / WEIGHTS)
    parts.model.eval()
    parts.metrics = read_metrics(folder / METRICS)
    parts.recipe = read_text(folder / RECIPE)
    parts.card = read_text(folder / CARD)


@contextmanager
def fitting_parts(folder: Path) -> Iterator[None]:
    """Blame the folder where what it describes cannot be put together."""
    try:
        yield
    except (ValueError, TypeError) as error:
        line = str(error).partition("\n")[0]
        raise CheckpointError(f"{folder} has parts that do not fit: {line}") from error


def read_text(path: Path) -> str:
    """Return a text file; an absent one is empty."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def read_metrics(path: Path) -> dict[str, object]:
    """Return what is noted about a model; {} where nothing is."""
    try:
        return dict(json.loads(read_text(path) or "{}"))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a JSON object: {error}") from error


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model directory."""
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} holds no tokenizer.json, expected a model directory")
    try:
        return load_tokenizer(folder)
    except Exception as error:  # the tokenizers library raises plain Exception
        line = str(error).partition("\n")[0]
        raise CheckpointError(f"{folder} has a tokenizer that cannot be read: {line}") from error


def check_folder(folder: Path) -> None:
    """Refuse what is no model directory, and pickles."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder, expected a model directory")
    if (folder / WEIGHTS).exists():
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder} holds {pickles[0]}, expected {WEIGHTS}; pickles can run code and are never "
            "loaded: export the weights as safetensors"
        )
    raise CheckpointError(f"{folder} holds no {WEIGHTS}, expected a model directory")


def read_config(folder: Path) -> ExtractorConfig:
    path = folder / CONFIG
    version = read_field(path, "format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {version!r}, expected {FORMAT_VERSION}; "
            "use the release that wrote this model, or train it again"
        )
    return read_document(ExtractorConfig, path)


def read_field(path: Path, name: str) -> object:
    """Return one field of a JSON object, read before the rest is checked; None if it is absent."""
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} holds no {path.name}, expected a whole model directory; "
            "write or copy the model again"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read as a JSON object: {error}") from error


def read_document(kind: type[Document], path: Path) -> Document:
    """Return a JSON file as the config class `kind`."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {place}: {first['msg']}; the file is damaged") from error


def fill_weights(model: nn.Module, path: Path) -> None:
    """Load a whole safetensors file into a model that it fits."""
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path} does not fit its config.json: {line}") from error
