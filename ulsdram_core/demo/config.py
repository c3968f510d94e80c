"""What a demo catalogue looks like."""

from typing import Literal

from pydantic import Field, model_validator

from ulsdram_core.frozen import Frozen

Language = Literal["en", "zh"]


class DemoConfig(Frozen):
    """A demo catalogue; equal configs draw equal catalogues, and a shorter one is a prefix."""

    num_products: int = Field(1_000, ge=0, description="Products `generate` draws.")
    seed: int = Field(0, ge=0, description="Names the catalogue; another seed, other products.")
    language: Language = Field("en", description="Language of titles, descriptions and values.")
    picture_size: int = Field(96, ge=32, le=2048, description="Side of a picture in pixels.")
    with_pictures: bool = Field(
        True, description="False leaves all pictures out: texts alone are drawn far faster."
    )
    ambiguous: float = Field(
        0.35, ge=0, le=1, description="Share of products whose gold only the picture decides."
    )
    duplicates: float = Field(
        0.12, ge=0, le=0.9, description="Share of products that another seller already listed."
    )
    small: float = Field(
        0.2, ge=0, le=1, description="Share of pictures with the product small and off-centre."
    )
    missing_pictures: float = Field(
        0.02, ge=0, le=1, description="Share of products without a picture (never ambiguous)."
    )

    @model_validator(mode="after")
    def _ambiguous_products_have_pictures(self) -> "DemoConfig":
        if self.ambiguous + self.missing_pictures > 1:
            raise ValueError(
                f"ambiguous {self.ambiguous} + missing_pictures {self.missing_pictures} exceed 1; "
                "ambiguous products need a picture, lower one of the two"
            )
        return self
