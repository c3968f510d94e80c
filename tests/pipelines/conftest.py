"""Helper modules of the nightly tests become importable here, in Ray workers and in forks.

So does the small shop of `tests/shop.py`.
"""

import os
import sys
from pathlib import Path

HELPERS = str(Path(__file__).resolve().parent / "nightly")
sys.path.insert(0, HELPERS)
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys([HELPERS, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
)

from shop import shop  # noqa: E402

__all__ = ["shop"]
