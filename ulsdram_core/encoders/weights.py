"""Finds weight files and reads them without running anybody's code."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ulsdram_core.errors import CheckpointError

# Training scripts often save the state dict inside a larger one, under one of these names.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")


def locate(spec: str) -> Path:
    """Return the file or folder that `file:/path` or `package:name/sub/path` names.

    The package is found, never imported.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "file":
        path = Path(rest).expanduser()
    elif scheme == "package":
        path = _in_package(rest)
    else:
        raise CheckpointError(f"found weights {spec!r}, expected file:/path or package:name/path")
    if not rest or not path.exists():
        raise CheckpointError(f"found no file {path} for weights {spec!r}; check the path")
    return path


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU from .safetensors or from a pickle that holds only tensors."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"found no weights file {path}; check the path")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    return _tensors(_load_pickle(path), path)


def copy_state(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], *, origin: str) -> None:
    """Copy `found` into the tensors of `wanted`, matched by `match_state`."""
    with torch.no_grad():
        for name, tensor in match_state(wanted, found, origin=origin).items():
            wanted[name].copy_(tensor)


def match_state(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], *, origin: str
) -> dict[str, Tensor]:
    """Return `found` under the names of `wanted`: by name, else in order where all shapes agree.

    What follows in `found` (a classifier) is left out. `num_batches_tracked` may be absent.
    """
    wanted = _without_counters(wanted)
    if missing := [name for name in wanted if name not in found]:
        return _match_in_order(wanted, _without_counters(found), missing[0], origin)
    for name, tensor in wanted.items():
        _check_shape(name, tensor, found[name], origin)
    return {name: found[name] for name in wanted}


def _match_in_order(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], missing: str, origin: str
) -> dict[str, Tensor]:
    # A safetensors file does not keep the order in which its tensors were written.
    if origin.endswith(".safetensors") or len(found) < len(wanted):
        raise CheckpointError(
            f"{origin} has {len(found)} tensors but no {missing!r}, expected all {len(wanted)} of "
            "the architecture; choose the architecture that these weights belong to"
        )
    pairs = list(zip(wanted, found.values(), strict=False))
    for name, tensor in pairs:
        _check_shape(name, wanted[name], tensor, origin)
    return dict(pairs)


def _check_shape(name: str, wanted: Tensor, found: Tensor, origin: str) -> None:
    if wanted.shape != found.shape:
        raise CheckpointError(
            f"{origin} has shape {tuple(found.shape)} for {name!r}, expected "
            f"{tuple(wanted.shape)}; choose the architecture that these weights belong to"
        )


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}


def _in_package(rest: str) -> Path:
    name, _, inside = rest.partition("/")
    # A dotted name would import the parent package.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"found no installed package {name!r}; install it or use file:/path")
    root = Path(next(iter(spec.submodule_search_locations)))
    path = root / inside
    if not path.resolve().is_relative_to(root.resolve()):
        raise CheckpointError(f"found path {inside!r}, expected one inside package {name!r}")
    return path


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors or is no weights file, so it is not opened; "
            "convert it to safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read as a weights file: {reason}") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return dict(content)
        content = next((content[name] for name in _WRAPPERS if name in content), None)
    raise CheckpointError(f"{path} holds no state dict, expected names mapped to tensors")


def hash_state(digest: Hash, state: Mapping[str, Tensor]) -> None:
    """Add every tensor's name, type, shape and bytes to a digest, by name."""
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(data.numpy().data)


class Hash(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""
