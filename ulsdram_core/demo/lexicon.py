"""The words of one language: how each fact is said, and everything said around it.

Marked text is plain text in which a gold value is written `[attribute|value]`; `read_marks`
turns it into the text and its gold spans. Square brackets and bars mark nothing else.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from ulsdram_core.demo.attributes import CATEGORIES, VALUES
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.entry import Entry
from ulsdram_core.schema import GoldSpan

_MARK = re.compile(r"\[(\w+)\|([^\]]+)\]")


def mark(attribute: str, value: str) -> str:
    """Return the value as a gold mark."""
    return f"[{attribute}|{value}]"


def strip_marks(marked: str) -> str:
    """Return the same words, none of them gold."""
    return _MARK.sub(r"\2", marked)


def read_marks(marked: str, source: str) -> tuple[str, tuple[GoldSpan, ...]]:
    """Return the text and its gold; a mark may have been upper- or lower-cased as a whole."""
    pieces: list[str] = []
    gold: list[GoldSpan] = []
    length = last = 0
    for match in _MARK.finditer(marked):
        before, value = marked[last : match.start()], match[2]
        start = length + len(before)
        length = start + len(value)
        pieces += (before, value)
        gold.append(GoldSpan(match[1].lower(), value, start, length, source))
        last = match.end()
    return "".join((*pieces, marked[last:])), tuple(gold)


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """All words of one language. `{}` in a pattern is the place of a marked value."""

    joiners: tuple[str, ...]  # between the parts of a title; one is chosen for the whole title
    words: Mapping[str, Mapping[str, tuple[str, ...]]]  # attribute -> key -> ways to say it
    phrases: Mapping[str, tuple[str, ...]]  # attribute -> patterns
    bare: str  # pattern of a value that leaves open which attribute it is of
    standalone: frozenset[tuple[str, str]]  # (attribute, key) said without a pattern
    types: Mapping[str, tuple[str, ...]]  # category -> type words
    coined_brands: tuple[str, ...]
    noun_brands: tuple[str, ...]
    brand_join: str  # between a brand's color and its noun
    sellers: tuple[str, ...]  # patterns that name the brand after the product
    blends: tuple[str, ...]  # {a} and {b}: two materials
    color_pairs: tuple[str, ...]  # {a} and {b}: two colors, one of them the product's
    moods: tuple[str, ...]  # a color word as a mood
    editions: tuple[str, ...]  # a color word as the name of a series
    companions: tuple[str, ...]  # between two garments
    heads: tuple[str, ...]  # nouns that hide the category
    openers: tuple[str, ...]
    closers: tuple[str, ...]  # {sku}
    sizes: Mapping[str, tuple[str, ...]]
    sentences: tuple[str, ...]  # {brand} {type} {color} {a} {b} {gender} {usage} {material}
    neutral: tuple[str, ...]  # sentences that say nothing of the product
    decoys: tuple[str, ...]  # {color} {type} of some other product
    sentence_joiner: str

    def word(self, attribute: str, key: str, dice: Dice) -> str:
        """Return the bare value, marked."""
        return mark(attribute, dice.choose(self.words[attribute][key]))

    def phrase(self, attribute: str, key: str, dice: Dice) -> str:
        """Return the value as it is usually said, marked: `[sleeve_length|Short] Sleeve`."""
        word = self.word(attribute, key, dice)
        if (attribute, key) in self.standalone or attribute not in self.phrases:
            return word
        return dice.choose(self.phrases[attribute]).replace("{}", word)

    def either(self, attribute: str, keys: tuple[str, str], *, true: str, dice: Dice) -> str:
        """Return both as one offer, the true one gold: `[sleeve_length|Long]/Short Sleeve`."""
        can_share = attribute in self.phrases and not any(
            (attribute, key) in self.standalone for key in keys
        )
        say = self.word if can_share else self.phrase
        said = [say(attribute, key, dice) for key in keys]
        both = "/".join(
            text if key == true else strip_marks(text) for key, text in zip(keys, said, strict=True)
        )
        return self.phrases[attribute][0].replace("{}", both) if can_share else both

    def material(self, entry: Entry, dice: Dice) -> str:
        """Return the material or, of a blend, both."""
        first = self.phrase("material", entry.values["material"], dice)
        if entry.second_material is None:
            return first
        second = self.word("material", entry.second_material, dice)
        return dice.choose(self.blends).format(
            a=self.word("material", entry.values["material"], dice), b=second
        )

    def brand(self, entry: Entry) -> str:
        """Return the brand's name, unmarked, with its color if it carries one."""
        if not entry.is_noun_brand:
            return self.coined_brands[entry.brand]
        noun = self.noun_brands[entry.brand]
        if entry.brand_color is None:
            return noun
        return self.words["color"][entry.brand_color][0] + self.brand_join + noun

    def type(self, category: str, dice: Dice) -> str:
        """Return a type word of the category, marked."""
        return mark("type", dice.choose(self.types[category]))

    def specs(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        """Return every true (attribute, value), said or not, each value in its first wording."""
        pairs = [("brand", self.brand(entry)), ("type", self.types[entry.category][0])]
        pairs += [(name, self.words[name][key][0]) for name, key in entry.values.items()]
        if entry.second_material is not None:
            pairs.append(("material", self.words["material"][entry.second_material][0]))
        return tuple(pairs)


def load_lexicon(language: str) -> Lexicon:
    """Return the words of a language, which its TOML file beside this one holds."""
    text = Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8")
    return TypeAdapter(Lexicon).validate_python(tomllib.loads(text))


@cache
def find_readings(lexicon: Lexicon) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return word -> category -> attributes it may be a value of, for words read in several ways.

    "Round" is a neckline of a dress, the toe of a shoe, the dial of a watch.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for category in CATEGORIES:
        for attribute, keys in VALUES[category].items():
            for key in keys:
                by_category = found.setdefault(lexicon.words[attribute][key][0], {})
                by_category[category] = (*by_category.get(category, ()), attribute)
    return {
        word: by_category
        for word, by_category in found.items()
        if len({name for names in by_category.values() for name in names}) > 1
    }
