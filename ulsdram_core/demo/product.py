"""One row of the demo catalogue."""

from dataclasses import dataclass
from datetime import UTC, datetime

from ulsdram_core.schema import GoldSpan, Product

FIRST_NIGHT = datetime(2024, 3, 1, tzinfo=UTC)  # every listing is older


@dataclass(frozen=True, slots=True)
class DemoProduct:
    """A listing: texts, picture and all that is true of it.

    `specs` holds every true (attribute, value), also those the texts do not say, each value in
    its usual wording; an attribute may have two. `gold` is what the texts do say.
    `box` is the product's half-open (left, top, right, bottom) in pixels; None without picture.
    Listings with one `catalog_id` are one product from different sellers.
    """

    product_id: str
    catalog_id: str
    title: str
    description: str
    picture: bytes | None
    category: str
    specs: tuple[tuple[str, str], ...]
    gold: tuple[GoldSpan, ...]
    box: tuple[int, int, int, int] | None
    is_small: bool  # small and off-centre in its picture
    trait: str | None  # kind of ambiguity that only the picture resolves
    updated_at: datetime

    def to_product(self) -> Product:
        """Return the row as the extractor sees it, with gold; no description where it is empty."""
        texts = {"title": self.title}
        if self.description:
            texts["description"] = self.description
        return Product(
            product_id=self.product_id,
            texts=texts,
            pictures=() if self.picture is None else (self.picture,),
            category=self.category,
            gold=self.gold,
            specs=self.specs,
        )
