"""Named points at which a test can kill the process, so that recovery is tested where it matters.

`ULSDRAM_CRASH_AT=<name>` kills the process with SIGKILL when it reaches that point.
"""

import os
import signal

VARIABLE = "ULSDRAM_CRASH_AT"

CRASH_POINTS = (
    "after_lock",
    "after_run_opened",
    "during_scan",
    "after_scan",
    "before_plan_saved",
    "after_plan_saved",
    "before_first_receipt",
    "after_first_receipt",
    "before_middle_receipt",
    "after_middle_receipt",
    "before_last_receipt",
    "after_last_receipt",
    "during_merge",
    "after_merge",
    "before_gate",
    "after_gate",
    "during_rewrite",
    "before_commit",
    "after_commit",
    "after_quarantine_commit",
    "before_closed",
    "after_published",
    "during_cleanup",
    "before_compaction",
    "after_compaction",
    "after_vacuum",
)


ERASE_POINTS = (
    "before_erase",
    "during_erase",
    "after_erase",
    "during_forget",
    "after_checkpoint",
)


def crash_point(name: str) -> None:
    """Die here if the environment says so."""
    assert name in CRASH_POINTS + ERASE_POINTS, name
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
