"""Windows and pictures of some products as tensors, padded to the longest window only.

Axes: B windows, L pieces, U units, K distinct pictures, M (picture, window) links, G gold pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ulsdram_core.labels import AlignedSpan, class_tags, pair_tags
from ulsdram_core.pairs import GoldPairs
from ulsdram_core.text import Window


@dataclass(frozen=True)
class Example:
    """One window of one product, with its product's pictures and, in training, its gold."""

    window: Window
    pictures: tuple[np.ndarray, ...] = ()
    """uint8 [S, S, 3] each, or regions [R, V] of a fixed image encoder; the same array object in
    two examples is encoded once."""
    gold: tuple[AlignedSpan, ...] | None = None


@dataclass(frozen=True)
class Batch:
    """What a model reads. Boolean masks are True where there is something."""

    piece_ids_BL: Tensor
    piece_types_BL: Tensor
    piece_mask_BL: Tensor
    unit_piece_BU: Tensor
    unit_mask_BU: Tensor
    unit_source_BU: Tensor
    """Which text column each unit stands in; 0 at padding."""
    pictures_K3SS: Tensor
    """Pixels; or [K, R, V], the regions that a fixed image encoder gives them."""
    picture_M: Tensor
    """[M] which distinct picture each link shows."""
    window_M: Tensor
    """[M] which window each link belongs to."""
    gold: GoldPairs | None = None
    class_tags_BU: Tensor | None = None
    """Gold as one tag sequence over all attributes' tags, for models without a policy."""

    @property
    def num_windows(self) -> int:
        """Number of windows B."""
        return len(self.piece_ids_BL)

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device."""
        moved: dict[str, Any] = {f.name: _move(getattr(self, f.name), device) for f in fields(self)}
        return Batch(**moved)

    def without_pictures(self, dropped_M: Tensor) -> "Batch":
        """Unlink the marked pictures (picture dropout); their pixels stay in the batch."""
        keep = ~dropped_M
        return replace(self, picture_M=self.picture_M[keep], window_M=self.window_M[keep])


def _move(
    value: Tensor | GoldPairs | None, device: torch.device | str
) -> Tensor | GoldPairs | None:
    if isinstance(value, GoldPairs):
        return GoldPairs(*(getattr(value, f.name).to(device) for f in fields(value)))
    return None if value is None else value.to(device, non_blocking=True)


@dataclass
class _Links:
    """Collects pictures, each distinct array once."""

    arrays: list[np.ndarray] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    picture: list[int] = field(default_factory=list)
    window: list[int] = field(default_factory=list)

    def add(self, array: np.ndarray, window: int) -> None:
        place = self.places.setdefault(id(array), len(self.arrays))
        if place == len(self.arrays):
            self.arrays.append(array)
        self.picture.append(place)
        self.window.append(window)

    def pixels(self, size: int) -> Tensor:
        if not self.arrays:
            return torch.empty(0, 3, size, size, dtype=torch.uint8)
        stacked = torch.from_numpy(np.stack(self.arrays))
        if stacked.dim() == 3:
            return stacked
        return stacked.permute(0, 3, 1, 2)  # channels-last memory, as convolutions like it


def _padded(rows: Sequence[np.ndarray], dtype: type = np.int64) -> Tensor:
    out: np.ndarray = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=dtype)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return torch.from_numpy(out)


def _mask(lengths: Sequence[int]) -> Tensor:
    longest = max(lengths, default=0)
    return torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]


def collate(examples: Sequence[Example], *, picture_size: int = 1) -> Batch:
    """Pad examples into one batch; gold appears when every example carries it."""
    windows = [example.window for example in examples]
    links = _Links()
    for place, example in enumerate(examples):
        for array in example.pictures:
            links.add(array, place)
    labelled = all(example.gold is not None for example in examples)
    return Batch(
        piece_ids_BL=_padded([w.piece_ids for w in windows]),
        piece_types_BL=_padded([w.piece_types for w in windows]),
        piece_mask_BL=_mask([len(w.piece_ids) for w in windows]),
        unit_piece_BU=_padded([w.unit_piece for w in windows]),
        unit_mask_BU=_mask([len(w.unit_piece) for w in windows]),
        unit_source_BU=_padded([w.unit_source for w in windows]),
        pictures_K3SS=links.pixels(picture_size),
        picture_M=torch.tensor(links.picture, dtype=torch.long),
        window_M=torch.tensor(links.window, dtype=torch.long),
        gold=_gold_pairs(examples) if labelled else None,
        class_tags_BU=_padded([class_tags(e.gold or (), e.window) for e in examples])
        if labelled
        else None,
    )


def _gold_pairs(examples: Sequence[Example]) -> GoldPairs:
    longest = max((len(example.window.unit_piece) for example in examples), default=0)
    windows: list[int] = []
    attributes: list[int] = []
    rows: list[np.ndarray] = []
    for place, example in enumerate(examples):
        for attribute in dict.fromkeys(span.attribute for span in example.gold or ()):
            spans = [span for span in example.gold or () if span.attribute == attribute]
            tags = pair_tags(spans, example.window)
            if tags.any():  # the value may lie in another window of the product
                windows.append(place)
                attributes.append(attribute)
                rows.append(tags)
    tags_GU = torch.zeros(len(rows), longest, dtype=torch.long)
    if rows:
        tags_GU = torch.nn.functional.pad(_padded(rows), (0, longest - max(map(len, rows))))
    return GoldPairs(
        torch.tensor(windows, dtype=torch.long), torch.tensor(attributes, dtype=torch.long), tags_GU
    )


def length_batches(lengths: Sequence[int], *, max_pieces: int, max_rows: int) -> list[list[int]]:
    """Group indices of similar length: each group pads to <= `max_pieces` pieces in all.

    One row always fits, however long. The order of groups is from long to short, so that memory
    peaks first.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for index in order:
        group = groups[-1] if groups else []
        room = group and len(group) < max_rows
        if room and (len(group) + 1) * lengths[group[0]] <= max_pieces:
            group.append(index)
        else:
            groups.append([index])
    return groups
