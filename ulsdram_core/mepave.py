"""The MEPAVE benchmark's line format: cid, sid, sentence, sentence with <attribute>value</...>."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ulsdram_core.errors import UlsdramError
from ulsdram_core.schema import GoldSpan

TAG = re.compile(r"<(/?)([^<>/\s][^<>/]*)>")


class MepaveProblem(StrEnum):
    """Why a line cannot be used."""

    WRONG_COLUMNS = "wrong_columns"
    NO_PICTURE_NUMBER = "no_picture_number"
    UNBALANCED_TAGS = "unbalanced_tags"
    EMPTY_VALUE = "empty_value"
    SENTENCE_DIFFERS = "sentence_differs"


class MepaveError(UlsdramError):
    """A line that does not follow the format; `problem` lets callers count by kind."""

    def __init__(self, message: str, problem: MepaveProblem) -> None:
        super().__init__(message, problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class MepaveLine:
    """One sentence about a product; several lines may share `cid`, and so the picture."""

    cid: str
    sid: str
    sentence: str
    gold: tuple[GoldSpan, ...]

    @property
    def picture(self) -> str:
        """The picture's path beside the benchmark's text files."""
        return f"product_images/{_digits(self.cid)}.jpg"


def parse_mepave_line(line: str) -> MepaveLine:
    """Read one line; MepaveError with its problem for a malformed one."""
    columns = line.rstrip("\r\n").split("\t")
    if len(columns) != 4:
        raise MepaveError(
            f"found {len(columns)} columns, expected cid, sid, sentence and tagged sentence "
            "separated by tabs",
            MepaveProblem.WRONG_COLUMNS,
        )
    cid, sid, sentence, tagged = columns
    if not _digits(cid):
        raise MepaveError(
            f"cid {cid!r} holds no digits to name the picture", MepaveProblem.NO_PICTURE_NUMBER
        )
    plain, gold = split_tags(tagged)
    if plain != sentence:
        raise MepaveError(
            f"the tagged sentence reads {plain!r} without its tags, expected {sentence!r}",
            MepaveProblem.SENTENCE_DIFFERS,
        )
    return MepaveLine(cid, sid, sentence, gold)


def split_tags(tagged: str) -> tuple[str, tuple[GoldSpan, ...]]:
    """The text without its tags, and the spans they marked as opened; tags may nest.

    A '<' that begins no tag is text.
    """
    parts: list[str] = []
    length = read = 0
    num_opened = 0
    open_tags: list[tuple[str, int, int]] = []
    bounds: list[tuple[int, int, int, str]] = []
    for match in TAG.finditer(tagged):
        parts.append(tagged[read : match.start()])
        length += len(parts[-1])
        read = match.end()
        closing, attribute = match.groups()
        if not closing:
            open_tags.append((attribute, length, num_opened))
            num_opened += 1
            continue
        if not open_tags or open_tags[-1][0] != attribute:
            raise _unbalanced(tagged)
        _, start, order = open_tags.pop()
        if start == length:
            raise MepaveError(f"{tagged!r} marks no text", MepaveProblem.EMPTY_VALUE)
        bounds.append((order, start, length, attribute))
    if open_tags:
        raise _unbalanced(tagged)
    plain = "".join([*parts, tagged[read:]])
    return plain, tuple(GoldSpan(name, plain[a:b], a, b) for _, a, b, name in sorted(bounds))


def join_tags(sentence: str, gold: Sequence[GoldSpan]) -> str:
    """Write spans, disjoint or nested, back as tags; the inverse of split_tags."""
    marks: list[tuple[int, int, int, str]] = []
    for order, span in enumerate(gold):
        # At one place: close before opening, and of what closes the inner one first.
        marks.append((span.start, 1, order, f"<{span.attribute}>"))
        marks.append((span.end, 0, -order, f"</{span.attribute}>"))
    parts, read = [], 0
    for place, _, _, mark in sorted(marks):
        parts += [sentence[read:place], mark]
        read = place
    return "".join([*parts, sentence[read:]])


def _unbalanced(tagged: str) -> MepaveError:
    return MepaveError(f"{tagged!r} opens and closes different tags", MepaveProblem.UNBALANCED_TAGS)


def _digits(cid: str) -> str:
    return "".join(re.findall(r"[0-9]+", cid))
