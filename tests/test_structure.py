"""The shape of the code that a reader relies on: few loose files, short modules, no cycles."""

import ast
import graphlib
import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jobs", "pipelines", "ulsdram_core")
MAX_LOOSE = 2
MAX_MODULES = 20
MAX_LINES = 400
USUAL_FUNCTION = 25  # lines, at the 95th percentile
LONGEST_FUNCTION = 60


@cache
def modules() -> dict[str, Path]:
    """Product modules by dotted name; a package is called as its folder."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(name: str) -> frozenset[str]:
    """Names of the product modules that a module imports, anywhere in it."""
    return frozenset(module for module in _imported(name) if module in modules())


def _imported(name: str) -> Iterator[str]:
    for node in ast.walk(tree(modules()[name])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (full if full in modules() else node.module for full in inner)


def test_at_most_two_loose_modules_in_pipelines():
    loose = sorted(path.name for path in (ROOT / "pipelines").glob("[!_]*.py"))
    assert len(loose) <= MAX_LOOSE, loose


def test_no_folder_holds_more_modules_than_a_reader_takes_in():
    folders = defaultdict(list)
    for path in modules().values():
        if path.name != "__init__.py":
            folders[path.parent.relative_to(ROOT)].append(path.name)
    assert {str(name): files for name, files in folders.items() if len(files) > MAX_MODULES} == {}


def test_no_module_is_long():
    lines = {name: path.read_bytes().count(b"\n") for name, path in modules().items()}
    assert {name: number for name, number in lines.items() if number > MAX_LINES} == {}


def test_functions_are_short():
    lengths = {}
    for name, path in modules().items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{name}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    longest = sorted(lengths, key=lengths.__getitem__, reverse=True)
    assert lengths[longest[0]] <= LONGEST_FUNCTION, longest[0]
    allowed = math.floor(0.05 * len(lengths))
    over = [name for name in longest if lengths[name] > USUAL_FUNCTION]
    assert len(over) <= allowed, f"{len(over)} of {len(lengths)}, shorten some of {over[allowed:]}"


def test_every_package_says_what_it_is():
    packages = {name: path for name, path in modules().items() if path.name == "__init__.py"}
    assert [name for name, path in packages.items() if not ast.get_docstring(tree(path))] == []


def test_no_module_imports_itself_back():
    graph = {name: imports(name) - {name} for name in modules()}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle


@pytest.mark.parametrize(
    "parent", [name for name, path in modules().items() if path.name == "__init__.py"]
)
def test_no_packages_import_each_other(parent):
    """Packages side by side, each with all below it; what stands loose above them is theirs."""

    def side(module: str) -> str | None:
        if not module.startswith(f"{parent}."):
            return None
        child = f"{parent}.{module.removeprefix(parent + '.').partition('.')[0]}"
        return child if modules()[child].name == "__init__.py" else None

    graph = defaultdict(set)
    for name in modules():
        for module in imports(name):
            ends = side(name), side(module)
            if None not in ends and ends[0] != ends[1]:
                graph[ends[0]].add(ends[1])
    list(graphlib.TopologicalSorter(graph).static_order())
