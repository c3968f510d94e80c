"""The small shop of `tests/shop.py`, for the tests below this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shop import shop

__all__ = ["shop"]
