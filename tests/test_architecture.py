"""docs/ARCHITECTURE.md is true: paths exist, no room is left out, floors are the contracts'."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
PATHS = [
    name
    for name in dict.fromkeys(re.findall(r"`([^`\s]+)`", TEXT))
    if "/" in name or re.search(r"\.(py|toml|md)$", name)
]
ROW = re.compile(r"^\| (\d+) \| (.+?) \|", re.MULTILINE)


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_is_named_exists(name):
    place = ROOT / name
    assert place.is_dir() if name.endswith("/") else place.is_file()


@pytest.mark.parametrize("package", ["pipelines", "ulsdram_core"])
def test_no_folder_with_modules_is_left_out(package):
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / package).rglob("*.py")}
    assert folders - set(PATHS) == set()


@pytest.mark.parametrize("package", ["pipelines", "ulsdram_core"])
def test_floors_are_those_of_the_import_contract(package):
    """Rooms that stand in the contract alone, such as small modules of the core, need no row."""
    told: dict[int, set[str]] = {}
    for floor, cell in ROW.findall(TEXT):
        for name in re.findall(rf"`{package}/(\w+)(?:/|\.py)`", cell):
            told.setdefault(int(floor), set()).add(name)
    known = set().union(*told.values())
    layers = [{name.strip() for name in layer.split("|")} & known for layer in _layers(package)]
    assert [told[floor] for floor in sorted(told)] == [layer for layer in layers if layer]


def _layers(package: str) -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return next(c["layers"] for c in contracts["contracts"] if c.get("containers") == [package])
