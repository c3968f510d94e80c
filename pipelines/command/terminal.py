"""Text for a terminal: colours where they are wanted, and nothing from the data that it obeys."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

ColourChoice = Literal["auto", "always", "never"]
SHADES = " \u2591\u2592\u2593\u2588"
_BAR = "\u2588"
_RESET = "\x1b[0m"
# Dark text on light backgrounds, readable in light and dark terminals alike.
_BACKGROUNDS = (153, 216, 157, 219, 228, 159, 217, 183, 193, 223)
_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def clean(text: str) -> str:
    """Return the text without what a terminal would obey: control and direction characters."""
    return _OBEYED.sub("?", text)


@dataclass(frozen=True, slots=True)
class Style:
    """Whether and how to colour."""

    is_coloured: bool

    @classmethod
    def of(cls, choice: ColourChoice) -> "Style":
        """Return the style of a choice; `auto` colours when the output is a terminal."""
        return cls(choice == "always" or (choice == "auto" and sys.stdout.isatty()))

    def bold(self, text: str) -> str:
        """Return text that stands out."""
        return f"\x1b[1m{text}{_RESET}" if self.is_coloured else text

    def faint(self, text: str) -> str:
        """Return text that stands back."""
        return f"\x1b[2m{text}{_RESET}" if self.is_coloured else text

    def marked(self, text: str, place: int) -> str:
        """Return text on a colour of its own; in brackets where there are no colours."""
        if not self.is_coloured:
            return f"[{text}]"
        return f"\x1b[38;5;16;48;5;{_BACKGROUNDS[place % len(_BACKGROUNDS)]}m{text}{_RESET}"

    def painted(self, text: str, rgb: Sequence[int]) -> str:
        """Return text in one colour."""
        red, green, blue = (int(channel) for channel in rgb)
        return f"\x1b[38;2;{red};{green};{blue}m{text}{_RESET}" if self.is_coloured else text


def meter(share: float, *, width: int = 10) -> str:
    """Return a share of 0 to 1 as a bar."""
    filled = round(width * min(max(share, 0.0), 1.0))
    return _BAR * filled + SHADES[1] * (width - filled)


def shade(share: float) -> str:
    """Return a share of 0 to 1 as a block character."""
    return SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]


def width_of(text: str) -> int:
    """Return columns that the text takes: CJK characters take two, colours none."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in plain)


def padded(text: str, width: int) -> str:
    """Return the text filled up to a number of columns."""
    return text + " " * max(0, width - width_of(text))


def columns(rows: Iterable[Sequence[str]], *, indent: int = 2) -> list[str]:
    """Return rows of cells as aligned lines."""
    found = [list(row) for row in rows]
    if not found:
        return []
    widths = [max(width_of(row[i]) for row in found) for i in range(len(found[0]))]
    return [
        " " * indent
        + "  ".join(padded(cell, w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in found
    ]
