"""What exporters do to the input files between two nights, and where choices come from."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from simulation.catalogue import Files, Item

T = TypeVar("T")
_WORDS = ("red", "blue", "wool", "cotton")


class Pick(Protocol):
    """Where choices come from."""

    def number(self, end: int) -> int:
        """0 <= n < end."""


class Dice:
    """Choices of a seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def number(self, end: int) -> int:
        return self._dice.randrange(end)


def choose(pick: Pick, items: Sequence[T]) -> T:
    """One of the items."""
    return items[pick.number(len(items))]


class Inputs:
    """The input files of a history; `log` gets the names of the changes."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.texts: dict[str, set[str]] = {}  # every unique text that an id ever had
        self._serial = 0
        self.files: Files = {
            "a.parquet": [self._item() for _ in range(5)],
            "b.parquet": [self._item()],
        }

    def change(self, pick: Pick) -> None:
        """One to three changes."""
        for _ in range(1 + pick.number(3)):
            change = choose(pick, _CHANGES)
            self.log.append(change.__name__)
            change(self, pick)

    def _item(self, **changes: Any) -> Item:
        self._serial += 1
        text = f"text{self._serial:05d}"
        words = f"{_WORDS[self._serial % 4]} {_WORDS[self._serial % 3]} shirt {text}"
        fields = {"id": f"id{self._serial:05d}", "title": words, "color": 60} | changes
        if fields["id"] is not None:
            self.texts.setdefault(fields["id"], set()).add(text)
        return Item(**fields)

    def _file(self, pick: Pick) -> tuple[str, list[Item]]:
        whole = [name for name, items in self.files.items() if items is not None]
        if not whole:
            self.files["a.parquet"] = []
            whole = ["a.parquet"]
        name = choose(pick, sorted(whole))
        return name, self.files[name]  # type: ignore[return-value]

    def add(self, pick: Pick) -> None:
        self._file(pick)[1].append(self._item())

    def remove(self, pick: Pick) -> None:
        items = self._file(pick)[1]
        if len(items) > 1:
            del items[pick.number(len(items))]

    def alter(self, pick: Pick) -> None:
        items = self._file(pick)[1]
        if items:
            i = pick.number(len(items))
            color = choose(pick, (None, -1, 30, 90))
            items[i] = self._item(id=items[i].id, color=color)

    def empty_text(self, pick: Pick) -> None:
        items = self._file(pick)[1]
        if items:
            i = pick.number(len(items))
            items[i] = Item(items[i].id, " ")

    def duplicate(self, pick: Pick) -> None:
        items = self._file(pick)[1]
        if items:
            twin = choose(pick, items)
            age = choose(pick, (None, 1, 2))
            self._file(pick)[1].append(self._item(id=twin.id, updated_at=age))

    def no_id(self, pick: Pick) -> None:
        self._file(pick)[1].append(self._item(id=None))

    def break_file(self, pick: Pick) -> None:
        name, _ = self._file(pick)
        if len(self.files) > 1:
            self.files[name] = None

    def mend_file(self, pick: Pick) -> None:
        broken = sorted(name for name, items in self.files.items() if items is None)
        if broken:
            self.files[choose(pick, broken)] = [self._item()]

    def rename(self, pick: Pick) -> None:
        name, items = self._file(pick)
        del self.files[name]
        self._serial += 1
        self.files[f"{choose(pick, ('a', 'x'))}{self._serial}.parquet"] = items


Change = Callable[[Inputs, Pick], None]
_CHANGES: tuple[Change, ...] = (
    Inputs.add,
    Inputs.alter,
    Inputs.alter,
    Inputs.remove,
    Inputs.duplicate,
    Inputs.no_id,
    Inputs.empty_text,
    Inputs.break_file,
    Inputs.mend_file,
    Inputs.rename,
)
