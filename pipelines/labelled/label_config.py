"""Which attributes a model learns from a labelled table."""

from pydantic import Field

from ulsdram_core.frozen import Frozen


class LabelConfig(Frozen):
    """Which attributes the model learns."""

    min_count: int = Field(1, ge=1, description="products an attribute must occur in")
    scope_to_category: bool = Field(
        False, description="extract only attributes seen with the product's category"
    )
    learn_single: bool = Field(
        False,
        description="extract only the most confident value of attributes that had one value in "
        "all but 0.1 % of at least 100 training products",
    )
    vocab_size: int = Field(
        8000, ge=100, description="pieces of a tokenizer built from the data (text_encoder tiny)"
    )
