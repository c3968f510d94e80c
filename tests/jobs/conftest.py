"""The small shop of `tests/shop.py`, for the tests below this folder."""

from shop import shop

__all__ = ["shop"]
