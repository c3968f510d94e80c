"""Titles whose gold only the picture decides.

Each kind writes one text pattern with two readings, and which one is true is even odds given
the text: the words that would be wrong are drawn as the true ones are.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ulsdram_core.demo.attributes import CATEGORIES, COLORS, VALUES, VISIBLE
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.facts import Facts
from ulsdram_core.demo.lexicon import Lexicon, find_readings, mark, strip_marks
from ulsdram_core.demo.titles import closer, join_title, opener, phrases_of


@dataclass(frozen=True, slots=True)
class Scribe:
    """All that a title is written from."""

    facts: Facts
    lexicon: Lexicon
    dice: Dice

    def extras(self, without: tuple[str, ...], most: int = 2) -> list[str]:
        """Some other true values of the product, in random order."""
        names = [name for name in VALUES[self.facts.category] if name not in without]
        names += [name for name in ("usage", "color") if name not in without]
        chosen = self.dice.sample(names, self.dice.integer(0, most))
        return phrases_of(chosen, facts=self.facts, lexicon=self.lexicon, dice=self.dice)

    def brand(self) -> str:
        """The brand, marked; nothing where a color in it would be one more reading."""
        is_said = self.facts.brand_color is None and self.dice.chance(0.7)
        return mark("brand", self.lexicon.brand(self.facts)) if is_said else ""

    def gender(self) -> str:
        """The gender word, marked, or nothing."""
        if not self.dice.chance(0.6):
            return ""
        return self.lexicon.word("gender", self.facts.values["gender"], self.dice)

    def type(self) -> str:
        """The type word, marked."""
        return self.lexicon.type(self.facts.category, self.dice)

    def title(self, *parts: str) -> str:
        """The parts as a title, with marketing words around them."""
        lexicon, dice = self.lexicon, self.dice
        return join_title([opener(lexicon, dice), *parts, closer(lexicon, dice)], lexicon, dice)

    def other_color(self) -> str:
        """A color word that is not the product's color, unmarked."""
        true = self.facts.values["color"]
        key = self.dice.choose([name for name in COLORS if name != true])
        return self.lexicon.words["color"][key][0]


def write_brand_color(scribe: Scribe) -> str:
    """ "Red Fox Shoes": a brand "Red Fox" on a shoe of another color, or a red shoe by "Fox".

    With an edition, "Red Fox Shoes Black Edition" is black in the first reading, red in the
    second.
    """
    facts, lexicon, dice = scribe.facts, scribe.lexicon, scribe.dice
    color = lexicon.words["color"][facts.values["color"]][0]
    noun = lexicon.noun_brands[facts.brand]
    if facts.brand_color is None:
        start = mark("color", color) + lexicon.brand_join + mark("brand", noun)
        edition = scribe.other_color()
    else:
        start = mark("brand", lexicon.brand(facts))
        edition = mark("color", color)
    extras = scribe.extras(without=("color",))
    last = dice.choose(lexicon.editions).replace("{}", edition) if dice.chance(0.5) else ""
    return scribe.title(start, scribe.gender(), *extras, scribe.type(), last)


def write_mood_color(scribe: Scribe) -> str:
    """ "Feeling Blue Collection Dress": gold only if the dress is blue."""
    facts, lexicon, dice = scribe.facts, scribe.lexicon, scribe.dice
    true = mark("color", lexicon.words["color"][facts.values["color"]][0])
    word = true if dice.chance(0.5) else scribe.other_color()
    mood = dice.choose(lexicon.moods).replace("{}", word)
    extras = scribe.extras(without=("color",))
    if dice.chance(0.3):
        return scribe.title(scribe.brand(), scribe.gender(), *extras, scribe.type(), mood)
    return scribe.title(scribe.brand(), mood, scribe.gender(), *extras, scribe.type())


def write_two_colors(scribe: Scribe) -> str:
    """ "Navy Maroon Striped Shirt": one is the product's, in either order.

    Half of the time the other one is the color of the print.
    """
    facts, lexicon, dice = scribe.facts, scribe.lexicon, scribe.dice
    true = mark("color", lexicon.words["color"][facts.values["color"]][0])
    accent = lexicon.words["color"][facts.accent][0]
    other = accent if dice.chance(0.5) else scribe.other_color()
    first, second = (true, other) if dice.chance(0.5) else (other, true)
    pair = dice.choose(lexicon.color_pairs).format(a=first, b=second)
    extras = scribe.extras(without=("color",))
    return scribe.title(scribe.brand(), scribe.gender(), pair, *extras, scribe.type())


def write_two_values(scribe: Scribe) -> str:
    """ "Long/Short Sleeve Shirt": an offer of both, the picture shows one."""
    facts, lexicon, dice = scribe.facts, scribe.lexicon, scribe.dice
    attribute = dice.choose([name for name in VALUES[facts.category] if name in VISIBLE])
    true = facts.values[attribute]
    other = dice.choose([key for key in VALUES[facts.category][attribute] if key != true])
    keys = (true, other) if dice.chance(0.5) else (other, true)
    offer = lexicon.either(attribute, keys, true=true, dice=dice)
    parts = dice.shuffled([offer, *scribe.extras(without=(attribute,))])
    return scribe.title(scribe.brand(), scribe.gender(), *parts, scribe.type())


def _draw_other(facts: Facts, category: str, dice: Dice) -> Facts:
    """A garment of that category, its values drawn as any product's are."""
    values = {"color": dice.choose(tuple(COLORS))}
    for attribute, keys in VALUES[category].items():
        values[attribute] = dice.choose(keys)
    return Facts(
        category=category,
        values=values,
        second_material=None,
        brand=facts.brand,
        is_noun_brand=False,
        brand_color=None,
        accent=facts.accent,
        dye=facts.dye,
        cut=facts.cut,
        weave=facts.weave,
    )


def _describe_garment(facts: Facts, lexicon: Lexicon, dice: Dice) -> str:
    """One or two values and the type, marked: "Short Trousers", "Striped Red Shirt".

    Short and long stand without "Sleeve" or "Length" half of the time.
    """
    names = dice.sample(("color", *VALUES[facts.category]), dice.integer(1, 2))
    said = []
    for name in names:
        is_bare = name in ("length", "sleeve_length") and dice.chance(0.5)
        key = facts.values[name]
        said.append(lexicon.word(name, key, dice) if is_bare else lexicon.phrase(name, key, dice))
    return dice.choose(lexicon.joiners).join((*said, lexicon.type(facts.category, dice)))


def write_other_garment(scribe: Scribe) -> str:
    """ "Striped Shirt With Short Trousers": only the pictured one's type and values are gold."""
    facts, lexicon, dice = scribe.facts, scribe.lexicon, scribe.dice
    category = dice.choose([name for name in CATEGORIES if name != facts.category])
    own = _describe_garment(facts, lexicon, dice)
    other = strip_marks(_describe_garment(_draw_other(facts, category, dice), lexicon, dice))
    first, second = (own, other) if dice.chance(0.5) else (other, own)
    return scribe.title(scribe.brand(), first, dice.choose(lexicon.companions), second)


def hidden_readings(facts: Facts, lexicon: Lexicon) -> list[tuple[str, str]]:
    """(attribute, word) of the product's values whose word names other attributes elsewhere.

    A word that the product could hold twice (a short dress with short sleeves) is left out.
    """
    readings = find_readings(lexicon)
    found = []
    for attribute in VALUES[facts.category]:
        word = lexicon.words[attribute][facts.values[attribute]][0]
        if readings.get(word, {}).get(facts.category) == (attribute,):
            found.append((attribute, word))
    return found


def _are_open_together(lexicon: Lexicon, first: str, second: str) -> bool:
    """Whether each of the two words keeps two readings among the categories that have both."""
    readings = find_readings(lexicon)
    both = readings[first].keys() & readings[second].keys()
    return all(
        len({name for category in both for name in readings[word][category]}) > 1
        for word in (first, second)
    )


def write_hidden_category(scribe: Scribe) -> str:
    """ "Fox Black Round Piece": a neckline, a toe, a dial or a bag, as the picture has it."""
    facts, lexicon, dice = scribe.facts, scribe.lexicon, scribe.dice
    found = dice.shuffled(hidden_readings(facts, lexicon))
    chosen = found[:1]
    chosen += [
        pair
        for pair in found[1:2]
        if _are_open_together(lexicon, chosen[0][1], pair[1]) and dice.chance(0.6)
    ]
    words = [lexicon.bare.replace("{}", mark(name, word)) for name, word in chosen]
    for name, share in (("color", 0.7), ("usage", 0.3)):
        if dice.chance(share):
            words.append(lexicon.word(name, facts.values[name], dice))
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


def draw_trait(facts: Facts, lexicon: Lexicon, dice: Dice) -> str:
    """One kind of ambiguity that these facts allow."""
    allowed = [
        trait
        for trait in TRAITS
        if (trait != "brand_color" or facts.is_noun_brand)
        and (trait != "hidden_category" or hidden_readings(facts, lexicon))
    ]
    return dice.weighted(allowed, [_WEIGHTS.get(trait, 3.0) for trait in allowed])
