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
    "in_first_wave",
    "after_first_wave_file",
    "after_first_wave",
    "in_middle_wave",
    "after_middle_wave",
    "in_last_wave",
    "after_last_wave",
    "before_gate",
    "after_gate",
    "during_rewrite",
    "before_commit",
    "after_commit",
    "after_quarantine_commit",
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
