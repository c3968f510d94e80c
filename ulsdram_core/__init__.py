"""ULS-DRAM as a library: attribute values from product texts and pictures."""

from ulsdram_core.schema import Extraction, GoldSpan, Product, Value

__all__ = ["Extraction", "GoldSpan", "Product", "Value"]
