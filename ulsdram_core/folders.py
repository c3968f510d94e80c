"""Folders that take each other's place; no model is loaded for it."""

import ctypes
import os
from pathlib import Path


def exchange_folders(one: Path, other: Path) -> bool:
    """Swap two folders' names at once; False where the system cannot.

    With two renames, a process killed between them would leave none.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <linux/fs.h>
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)
