"""The built-in demo catalogue: drawn pictures, written titles, known truth; nothing to download.

Frozen: measurements are compared across versions of the project, so equal configs must draw
equal texts, gold and pixels for as long as `DEMO_VERSION` stands.
"""

from ulsdram_core.demo.ambiguity import TRAITS as _TRAITS
from ulsdram_core.demo.attributes import ATTRIBUTES, CATEGORIES, CATEGORY_ATTRIBUTES
from ulsdram_core.demo.catalog import draw_listing, generate, generate_range
from ulsdram_core.demo.config import DemoConfig
from ulsdram_core.demo.night import Fate, NightRow, second_night
from ulsdram_core.demo.product import DemoProduct
from ulsdram_core.demo.scene import Drawing
from ulsdram_core.demo.split import Split, split

DEMO_VERSION = 1
TRAITS: tuple[str, ...] = tuple(_TRAITS)

__all__ = [
    "ATTRIBUTES",
    "CATEGORIES",
    "CATEGORY_ATTRIBUTES",
    "DEMO_VERSION",
    "TRAITS",
    "DemoConfig",
    "DemoProduct",
    "Drawing",
    "Fate",
    "NightRow",
    "Split",
    "draw_listing",
    "generate",
    "generate_range",
    "second_night",
    "split",
]
