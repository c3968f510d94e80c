"""What a gate says: checks of what was found against a limit, each with its verdict."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "failed", "not judged"]
PASSED: Verdict = "passed"
FAILED: Verdict = "failed"
NOT_JUDGED: Verdict = "not judged"


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of a gate."""

    name: str
    found: float
    limit: float
    verdict: Verdict
    note: str = ""


def at_most(name: str, found: float, limit: float, note: str = "") -> Check:
    """Return the check that what was found is no more than the limit."""
    return Check(name, found, limit, PASSED if found <= limit else FAILED, note)


def at_least(name: str, found: float, limit: float, note: str = "") -> Check:
    """Return the check that what was found is no less than the limit."""
    return Check(name, found, limit, PASSED if found >= limit else FAILED, note)
