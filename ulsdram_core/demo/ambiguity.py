"""Titles whose gold only the picture decides.

Each kind writes one text pattern with two readings, and which one is true is even odds given
the text: the words that would be wrong are drawn as the true ones are.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ulsdram_core.demo.attributes import CATEGORIES, COLORS, VALUES, VISIBLE
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.entry import Entry
from ulsdram_core.demo.lexicon import Lexicon, find_readings, mark, strip_marks
from ulsdram_core.demo.titles import closer, join_title, opener, phrases_of


@dataclass(frozen=True, slots=True)
class Scribe:
    """All that a title is written from."""

    entry: Entry
    lexicon: Lexicon
    dice: Dice

    def extras(self, without: tuple[str, ...], most: int = 2) -> list[str]:
        """Return some other true values of the product, in random order."""
        names = [name for name in VALUES[self.entry.category] if name not in without]
        names += [name for name in ("usage", "color") if name not in without]
        chosen = self.dice.sample(names, self.dice.integer(0, most))
        return phrases_of(chosen, entry=self.entry, lexicon=self.lexicon, dice=self.dice)

    def brand(self) -> str:
        """Return the brand, marked; nothing where a color in it would be one more reading."""
        is_said = self.entry.brand_color is None and self.dice.chance(0.7)
        return mark("brand", self.lexicon.brand(self.entry)) if is_said else ""

    def gender(self) -> str:
        """Return the gender word, marked, or nothing."""
        if not self.dice.chance(0.6):
            return ""
        return self.lexicon.word("gender", self.entry.values["gender"], self.dice)

    def type(self) -> str:
        """Return the type word, marked."""
        return self.lexicon.type(self.entry.category, self.dice)

    def title(self, *parts: str) -> str:
        """Return the parts as a title, with marketing words around them."""
        lexicon, dice = self.lexicon, self.dice
        return join_title([opener(lexicon, dice), *parts, closer(lexicon, dice)], lexicon, dice)

    def other_color(self) -> str:
        """Return a color word that is not the product's color, unmarked."""
        true = self.entry.values["color"]
        key = self.dice.choose([name for name in COLORS if name != true])
        return self.lexicon.words["color"][key][0]


def write_brand_color(scribe: Scribe) -> str:
    """Write "Red Fox Shoes": a brand "Red Fox" on a shoe of another color, or a red shoe by "Fox".

    With an edition, "Red Fox Shoes Black Edition" is black in the first reading, red in the
    second.
    """
    entry, lexicon, dice = scribe.entry, scribe.lexicon, scribe.dice
    color = lexicon.words["color"][entry.values["color"]][0]
    noun = lexicon.noun_brands[entry.brand]
    if entry.brand_color is None:
        start = mark("color", color) + lexicon.brand_join + mark("brand", noun)
        edition = scribe.other_color()
    else:
        start = mark("brand", lexicon.brand(entry))
        edition = mark("color", color)
    extras = scribe.extras(without=("color",))
    last = dice.choose(lexicon.editions).replace("{}", edition) if dice.chance(0.5) else ""
    return scribe.title(start, scribe.gender(), *extras, scribe.type(), last)


def write_mood_color(scribe: Scribe) -> str:
    """Write "Feeling Blue Collection Dress": gold only if the dress is blue."""
    entry, lexicon, dice = scribe.entry, scribe.lexicon, scribe.dice
    true = mark("color", lexicon.words["color"][entry.values["color"]][0])
    word = true if dice.chance(0.5) else scribe.other_color()
    mood = dice.choose(lexicon.moods).replace("{}", word)
    extras = scribe.extras(without=("color",))
    if dice.chance(0.3):
        return scribe.title(scribe.brand(), scribe.gender(), *extras, scribe.type(), mood)
    return scribe.title(scribe.brand(), mood, scribe.gender(), *extras, scribe.type())


def write_two_colors(scribe: Scribe) -> str:
    """Write "Navy Maroon Striped Shirt": one is the product's, in either order.

    Half of the time the other one is the color of the print.
    """
    entry, lexicon, dice = scribe.entry, scribe.lexicon, scribe.dice
    true = mark("color", lexicon.words["color"][entry.values["color"]][0])
    accent = lexicon.words["color"][entry.accent][0]
    other = accent if dice.chance(0.5) else scribe.other_color()
    first, second = (true, other) if dice.chance(0.5) else (other, true)
    pair = dice.choose(lexicon.color_pairs).format(a=first, b=second)
    extras = scribe.extras(without=("color",))
    return scribe.title(scribe.brand(), scribe.gender(), pair, *extras, scribe.type())


def write_two_values(scribe: Scribe) -> str:
    """Write "Long/Short Sleeve Shirt": an offer of both, the picture shows one."""
    entry, lexicon, dice = scribe.entry, scribe.lexicon, scribe.dice
    attribute = dice.choose([name for name in VALUES[entry.category] if name in VISIBLE])
    true = entry.values[attribute]
    other = dice.choose([key for key in VALUES[entry.category][attribute] if key != true])
    keys = (true, other) if dice.chance(0.5) else (other, true)
    offer = lexicon.either(attribute, keys, true=true, dice=dice)
    parts = dice.shuffled([offer, *scribe.extras(without=(attribute,))])
    return scribe.title(scribe.brand(), scribe.gender(), *parts, scribe.type())


def _draw_other(entry: Entry, category: str, dice: Dice) -> Entry:
    """Return a garment of that category, its values drawn as any product's are."""
    values = {"color": dice.choose(tuple(COLORS))}
    for attribute, keys in VALUES[category].items():
        values[attribute] = dice.choose(keys)
    return Entry(
        category=category,
        values=values,
        second_material=None,
        brand=entry.brand,
        is_noun_brand=False,
        brand_color=None,
        accent=entry.accent,
        dye=entry.dye,
        cut=entry.cut,
        weave=entry.weave,
    )


def _describe_garment(entry: Entry, lexicon: Lexicon, dice: Dice) -> str:
    """Return one or two values and the type, marked: "Short Trousers", "Striped Red Shirt".

    Short and long stand without "Sleeve" or "Length" half of the time.
    """
    names = dice.sample(("color", *VALUES[entry.category]), dice.integer(1, 2))
    said = []
    for name in names:
        is_bare = name in ("length", "sleeve_length") and dice.chance(0.5)
        key = entry.values[name]
        said.append(lexicon.word(name, key, dice) if is_bare else lexicon.phrase(name, key, dice))
    return dice.choose(lexicon.joiners).join((*said, lexicon.type(entry.category, dice)))


def write_other_garment(scribe: Scribe) -> str:
    """Write "Striped Shirt With Short Trousers": the type and values of the pictured are gold."""
    entry, lexicon, dice = scribe.entry, scribe.lexicon, scribe.dice
    category = dice.choose([name for name in CATEGORIES if name != entry.category])
    own = _describe_garment(entry, lexicon, dice)
    other = strip_marks(_describe_garment(_draw_other(entry, category, dice), lexicon, dice))
    first, second = (own, other) if dice.chance(0.5) else (other, own)
    return scribe.title(scribe.brand(), first, dice.choose(lexicon.companions), second)


def hidden_readings(entry: Entry, lexicon: Lexicon) -> list[tuple[str, str]]:
    """Return (attribute, word) of the product's values whose word names other attributes elsewhere.

    A word that the product could hold twice (a short dress with short sleeves) is left out.
    """
    readings = find_readings(lexicon)
    found = []
    for attribute in VALUES[entry.category]:
        word = lexicon.words[attribute][entry.values[attribute]][0]
        if readings.get(word, {}).get(entry.category) == (attribute,):
            found.append((attribute, word))
    return found


def _are_open_together(lexicon: Lexicon, first: str, second: str) -> bool:
    """Return whether each word keeps two readings among the categories that have both."""
    readings = find_readings(lexicon)
    both = readings[first].keys() & readings[second].keys()
    return all(
        len({name for category in both for name in readings[word][category]}) > 1
        for word in (first, second)
    )


def write_hidden_category(scribe: Scribe) -> str:
    """Write "Fox Black Round Piece": a neckline, a toe, a dial or a bag, as the picture has it."""
    entry, lexicon, dice = scribe.entry, scribe.lexicon, scribe.dice
    found = dice.shuffled(hidden_readings(entry, lexicon))
    chosen = found[:1]
    chosen += [
        pair
        for pair in found[1:2]
        if _are_open_together(lexicon, chosen[0][1], pair[1]) and dice.chance(0.6)
    ]
    words = [lexicon.bare.replace("{}", mark(name, word)) for name, word in chosen]
    for name, share in (("color", 0.7), ("usage", 0.3)):
        if dice.chance(share):
            words.append(lexicon.word(name, entry.values[name], dice))
    return scribe.title(scribe.brand(), *dice.shuffled(words), dice.choose(lexicon.heads))


TRAITS: dict[str, Callable[[Scribe], str]] = {
    "two_colors": write_two_colors,
    "mood_color": write_mood_color,
    "brand_color": write_brand_color,
    "two_values": write_two_values,
    "other_garment": write_other_garment,
    "hidden_category": write_hidden_category,
}
_WEIGHTS = {"two_colors": 4.0, "brand_color": 5.0}


def draw_trait(entry: Entry, lexicon: Lexicon, dice: Dice) -> str:
    """Return one kind of ambiguity that this entry allows."""
    allowed = [
        trait
        for trait in TRAITS
        if (trait != "brand_color" or entry.is_noun_brand)
        and (trait != "hidden_category" or hidden_readings(entry, lexicon))
    ]
    return dice.weighted(allowed, [_WEIGHTS.get(trait, 3.0) for trait in allowed])
