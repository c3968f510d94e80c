"""Titles and descriptions that say plainly what the product is."""

from collections.abc import Sequence

from ulsdram_core.demo.attributes import CATEGORIES, COLORS, VALUES
from ulsdram_core.demo.dice import Dice
from ulsdram_core.demo.entry import Entry
from ulsdram_core.demo.lexicon import Lexicon, mark


def draw_sku(dice: Dice) -> str:
    """Return a seller's code such as HX-2041."""
    letters = "".join(dice.choose("ABCDEFGHKLMNPRSTX") for _ in range(2))
    return f"{letters}-{dice.integer(1000, 9999)}"


def join_title(parts: Sequence[str], lexicon: Lexicon, dice: Dice) -> str:
    """Return a title of the marked parts that are not empty, at times all upper or lower case."""
    title = dice.choose(lexicon.joiners).join(part for part in parts if part)
    case = dice.between(0, 1)
    if case < 0.05:
        return title.upper().replace("&AMP;", "&amp;")
    return title.lower() if case < 0.12 else title


def opener(lexicon: Lexicon, dice: Dice) -> str:
    """Return marketing words before a title, most often none."""
    return dice.choose(lexicon.openers) if dice.chance(0.25) else ""


def closer(lexicon: Lexicon, dice: Dice) -> str:
    """Return marketing words or a code after a title, or none; it tells nothing of the product."""
    if not dice.chance(0.35):
        return ""
    return dice.choose(lexicon.closers).replace("{sku}", draw_sku(dice))


def phrases_of(
    attributes: Sequence[str], *, entry: Entry, lexicon: Lexicon, dice: Dice
) -> list[str]:
    """Return each attribute's true value, as it is usually said."""
    return [
        lexicon.material(entry, dice)
        if name == "material"
        else lexicon.phrase(name, entry.values[name], dice)
        for name in attributes
    ]


def write_title(entry: Entry, lexicon: Lexicon, dice: Dice) -> str:
    """Return a marked title whose gold the words alone decide.

    A color never stands right before a brand, and a brand with a color in it comes with the
    product's own color: "Red Fox Men Black Shoes".
    """
    names_brand = dice.chance(0.85)
    brand = mark("brand", lexicon.brand(entry)) if names_brand else ""
    is_last = names_brand and dice.chance(0.1)
    needs_color = entry.brand_color is not None and names_brand
    chosen = ["color"] if needs_color or dice.chance(0.8) else []
    chosen += ["usage"] if dice.chance(0.35) else []
    chosen += dice.sample(tuple(VALUES[entry.category]), dice.integer(1, 3))
    phrases = phrases_of(dice.shuffled(chosen), entry=entry, lexicon=lexicon, dice=dice)
    type_at = len(phrases) - (1 if dice.chance(0.2) else 0)
    phrases.insert(type_at, lexicon.type(entry.category, dice))
    gender = lexicon.word("gender", entry.values["gender"], dice) if dice.chance(0.7) else ""
    size = dice.choose(lexicon.sizes[entry.category]) if dice.chance(0.2) else ""
    last = dice.choose(lexicon.sellers).replace("{}", brand) if is_last else ""
    if names_brand and not is_last and dice.chance(0.06):
        last = "| " + brand
    first = "" if is_last else brand
    parts = [opener(lexicon, dice), first, gender, *phrases, size, closer(lexicon, dice), last]
    return join_title(parts, lexicon, dice)


def _fill_sentence(pattern: str, *, entry: Entry, lexicon: Lexicon, dice: Dice) -> str:
    """Return the sentence with every slot said in lower case, the brand as it is written."""
    own = [name for name in VALUES[entry.category] if name != "material"]
    a, b = dice.sample(own, 2)
    slots = {
        "brand": mark("brand", lexicon.brand(entry)),
        "type": lexicon.type(entry.category, dice).lower(),
        "a": lexicon.phrase(a, entry.values[a], dice).lower(),
        "b": lexicon.phrase(b, entry.values[b], dice).lower(),
    }
    for name in ("color", "gender", "usage"):
        slots[name] = lexicon.word(name, entry.values[name], dice).lower()
    if "{material}" in pattern:
        slots["material"] = lexicon.material(entry, dice).lower()
    return pattern.format(**slots)


def write_decoy(entry: Entry, lexicon: Lexicon, dice: Dice) -> str:
    """Return a sentence about some other product, of another category; nothing in it is gold."""
    others = [category for category in CATEGORIES if category != entry.category]
    color = dice.choose(lexicon.words["color"][dice.choose(tuple(COLORS))])
    kind = dice.choose(lexicon.types[dice.choose(others)])
    return dice.choose(lexicon.decoys).format(color=color.lower(), type=kind.lower())


def write_description(entry: Entry, lexicon: Lexicon, dice: Dice) -> str:
    """Return one to three marked sentences, or nothing for one product in eight."""
    if dice.chance(0.125):
        return ""
    usable = [
        pattern
        for pattern in lexicon.sentences
        if "material" in VALUES[entry.category] or "{material}" not in pattern
    ]
    chosen = dice.sample(usable, dice.integer(1, 2))
    said = [_fill_sentence(text, entry=entry, lexicon=lexicon, dice=dice) for text in chosen]
    if dice.chance(0.3):
        said.append(write_decoy(entry, lexicon, dice))
    if dice.chance(0.2):
        said.insert(dice.integer(0, 1), dice.choose(lexicon.neutral))
    return lexicon.sentence_joiner.join(said[:3])


def write_neutral_description(
    entry: Entry, lexicon: Lexicon, dice: Dice, *, allow_decoy: bool
) -> str:
    """Return sentences that leave open everything the picture is there to decide."""
    said = dice.sample(lexicon.neutral, dice.integer(0, 2))
    if allow_decoy and dice.chance(0.3):
        said.append(write_decoy(entry, lexicon, dice))
    return lexicon.sentence_joiner.join(said)
