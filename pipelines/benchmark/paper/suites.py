"""The paper's tables: which systems stand in which row, beside the published figures."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from ulsdram_core.frozen import Frozen

# Metric names as the runs store them, and as the tables print them.
COLUMNS = {
    "precision": "Precision",
    "recall": "Recall",
    "tag_f1": "TAG-F1",
    "cls_f1": "CLS-F1",
    "accuracy": "Accuracy",
}


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    system: str
    label: str
    published: dict[str, float] = field(default_factory=dict)
    """In percent, on MEPAVE (Tables 1 to 4) or MAE (Table 5)."""
    ours: bool = False
    """Whether the paper proposes it; the others are baselines."""


@dataclass(frozen=True)
class Suite:
    """One table or figure."""

    name: str
    title: str
    metrics: tuple[str, ...]
    """The last one decides: gains, bootstrap and plot are about it."""
    rows: tuple[Row, ...]
    benchmark: str = "MEPAVE"


class _SuitesFile(Frozen):
    suites: tuple[Suite, ...]
    zero_shot: tuple[Row, ...]
    """Systems that know attributes by their names, so that new ones can be asked for."""


_FILE = _SuitesFile.model_validate(
    tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
)
SUITES = {suite.name: suite for suite in _FILE.suites}
TABLE2, FIG8 = SUITES["table2"], SUITES["fig8"]
ZERO_SHOT = _FILE.zero_shot


def chosen_suites(name: str) -> list[Suite]:
    """Return the suites that `--suite` names."""
    if name == "all":
        return list(SUITES.values())
    if name not in SUITES:
        raise ValueError(f"found suite {name!r}, expected all or one of {', '.join(SUITES)}")
    return [SUITES[name]]


def systems_of(suites: list[Suite]) -> list[str]:
    """Return every system that stands in one of the suites, once, in order."""
    return list(dict.fromkeys(row.system for suite in suites for row in suite.rows))
