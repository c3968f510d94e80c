"""Arrays on disk that all runs share: decoded pictures, and what fixed image encoders give them.

Each distinct picture is decoded once for all systems, seeds and processes; a memory map holds it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.lake.storage import Storage
from ulsdram_core.encoders.image_encoder import ImageEncoder, ImageEncoderConfig
from ulsdram_core.errors import PictureError
from ulsdram_core.image import ImageConfig, decode_picture

_log = logging.getLogger(__name__)
ENCODED_AT_ONCE = 32


@dataclass(frozen=True)
class PictureStore:
    """One array per distinct picture, and the pictures of every product."""

    arrays: tuple[np.ndarray, ...]
    """The same object for the same picture, so that a batch holds it once."""
    of_product: tuple[tuple[int, ...], ...]

    def of(self, place: int) -> tuple[np.ndarray, ...]:
        """Return the pictures of product number `place`."""
        return tuple(self.arrays[i] for i in self.of_product[place])


def open_store(path: Path) -> PictureStore | None:
    """Return a finished store, or None."""
    index = path.with_suffix(".json")
    if not index.exists():  # written last
        return None
    listed = json.loads(index.read_text(encoding="ascii"))
    of_product = tuple(tuple(row) for row in listed["of_product"])
    if not listed["count"]:
        return PictureStore((), of_product)
    return PictureStore(tuple(np.load(path, mmap_mode="r")), of_product)


def decode_store(
    path: Path, pictures: Iterable[Sequence[bytes]], image: ImageConfig
) -> PictureStore:
    """Decode every product's pictures into `path`; those that cannot be decoded are left out."""
    places: dict[bytes, int | None] = {}
    decoded: list[np.ndarray] = []
    of_product: list[list[int]] = []
    for row in pictures:
        found = []
        for data in row:
            key = hashlib.blake2b(data, digest_size=16).digest()
            if key not in places:
                places[key] = _decode(data, image, decoded)
            place = places[key]
            if place is not None:
                found.append(place)
        of_product.append(found)
    shape = (len(decoded), image.size, image.size, 3)
    return _write(path, decoded, of_product, shape=shape, dtype="uint8")


def _decode(data: bytes, image: ImageConfig, decoded: list[np.ndarray]) -> int | None:
    try:
        decoded.append(decode_picture(data, image))
    except PictureError as error:
        _log.warning("a picture cannot be used: %s", error)
        return None
    return len(decoded) - 1


def _write(
    path: Path,
    rows: Iterable[np.ndarray],
    of_product: Sequence[Sequence[int]],
    *,
    shape: tuple[int, ...],
    dtype: str,
) -> PictureStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    if shape[0]:
        draft = path.with_name(f".{os.getpid()}.{path.name}")
        target = np.lib.format.open_memmap(draft, mode="w+", dtype=dtype, shape=shape)
        for place, row in enumerate(rows):
            target[place] = row
        target.flush()
        del target
        draft.replace(path)
    index = {"count": shape[0], "of_product": [list(row) for row in of_product]}
    Storage.of(path.with_suffix(".json")).write_bytes(json.dumps(index).encode())
    store = open_store(path)
    assert store is not None
    return store


def build_fixed_encoder(config: ImageEncoderConfig, size: int) -> ImageEncoder:
    """Build an image encoder that no run trains; without weights it is the same for all seeds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return config.build(size=size).eval()


@torch.inference_mode()
def encode_store(path: Path, pixels: PictureStore, encoder: ImageEncoder) -> PictureStore:
    """Write the regions [R, V] of every picture as float16."""
    if not pixels.arrays:
        return _write(path, [], pixels.of_product, shape=(0,), dtype="float16")
    size = pixels.arrays[0].shape[0]
    height, width = encoder.grid(size)
    device = next(encoder.parameters()).device

    def rows() -> Iterable[np.ndarray]:
        for start in range(0, len(pixels.arrays), ENCODED_AT_ONCE):
            stacked = np.stack(pixels.arrays[start : start + ENCODED_AT_ONCE])
            pictures = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
            # float16 ends at 65504; untrained encoders may be loud.
            yield from encoder(pictures).clamp(-6e4, 6e4).half().cpu().numpy()

    shape = (len(pixels.arrays), height * width, encoder.region_dim)
    return _write(path, rows(), pixels.of_product, shape=shape, dtype="float16")
