"""Categories, their attributes and the values these can take, free of any language."""

CATEGORIES = ("shirt", "dress", "trousers", "skirt", "jacket", "shoes", "bag", "watch")

# Red, green, blue of each color: far enough apart to survive lighting and small pictures.
COLORS: dict[str, tuple[int, int, int]] = {
    "black": (26, 26, 28),
    "white": (244, 244, 242),
    "grey": (138, 140, 143),
    "red": (206, 30, 38),
    "orange": (243, 132, 28),
    "yellow": (247, 214, 46),
    "green": (40, 142, 66),
    "blue": (48, 116, 226),
    "navy": (24, 34, 92),
    "purple": (122, 48, 158),
    "pink": (246, 142, 178),
    "brown": (112, 66, 34),
}

EVERYWHERE = ("brand", "type", "gender", "color", "usage")
_COLOR = tuple(COLORS)
_PATTERN = ("solid", "striped", "checked", "dotted", "floral")
_SLEEVE = ("sleeveless", "short", "long")
_FIT = ("slim", "classic", "loose")
_WAIST = ("high", "mid", "low")
_STYLE = ("classic", "retro", "sport")

# category -> attribute -> value keys; brand, type, gender, color and usage come on top.
VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "shirt": {
        "pattern": _PATTERN,
        "material": ("cotton", "linen", "silk", "polyester"),
        "sleeve_length": _SLEEVE,
        "neckline": ("round", "v", "high", "collar"),
        "fit": _FIT,
    },
    "dress": {
        "pattern": _PATTERN,
        "material": ("cotton", "linen", "silk", "chiffon"),
        "sleeve_length": _SLEEVE,
        "neckline": ("round", "v", "square"),
        "length": ("short", "midi", "long"),
    },
    "trousers": {
        "pattern": _PATTERN,
        "material": ("cotton", "linen", "denim", "wool"),
        "length": ("short", "cropped", "long"),
        "fit": _FIT,
        "waist": _WAIST,
    },
    "skirt": {
        "pattern": _PATTERN,
        "material": ("cotton", "denim", "wool", "leather"),
        "length": ("short", "midi", "long"),
        "waist": _WAIST,
    },
    "jacket": {
        "pattern": _PATTERN,
        "material": ("leather", "denim", "wool", "nylon"),
        "sleeve_length": ("sleeveless", "long"),
        "fit": _FIT,
        "closure": ("zip", "button"),
    },
    "shoes": {
        "material": ("leather", "canvas", "suede", "mesh"),
        "heel": ("flat", "high", "block", "wedge"),
        "toe_shape": ("round", "pointed", "square"),
        "closure": ("lace", "buckle", "slip"),
        "style": _STYLE,
    },
    "bag": {
        "pattern": _PATTERN,
        "material": ("leather", "canvas", "suede", "nylon"),
        "bag_shape": ("round", "square", "wide"),
        "strap": ("chain", "single", "double"),
        "hardware": ("gold", "silver"),
        "closure": ("zip", "buckle", "button"),
        "style": _STYLE,
    },
    "watch": {
        "strap": ("leather", "steel", "nylon", "mesh"),
        "dial_shape": ("round", "square"),
        "case_color": ("gold", "silver"),
        "style": _STYLE,
    },
}

CATEGORY_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    category: (*EVERYWHERE, *VALUES[category]) for category in CATEGORIES
}
ATTRIBUTES: tuple[str, ...] = tuple(
    dict.fromkeys(name for names in CATEGORY_ATTRIBUTES.values() for name in names)
)

GENDERS = ("men", "women", "unisex")
USAGES = ("casual", "formal", "party", "travel")
WOMEN_ONLY = ("dress", "skirt")

# What a picture shows; the rest (brand, gender, usage, style, most materials) is in words only.
VISIBLE: tuple[str, ...] = (
    "type", "color", "pattern", "sleeve_length", "neckline", "length", "fit", "waist",
    "closure", "heel", "toe_shape", "bag_shape", "hardware", "dial_shape", "case_color",
)  # fmt: skip


def luminance(color: str) -> float:
    """Return the perceived brightness of a named color, 0 to 255."""
    red, green, blue = COLORS[color]
    return 0.3 * red + 0.59 * green + 0.11 * blue


# Colors a pattern can be printed in so that it is seen on the cloth.
ACCENTS: dict[str, tuple[str, ...]] = {
    base: tuple(c for c in _COLOR if abs(luminance(c) - luminance(base)) >= 55) for base in _COLOR
}
