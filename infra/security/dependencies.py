#!/usr/bin/env python3
"""What the product depends on: pins, licences, bill of materials, known vulnerabilities.

Looks at the environment it runs in, from the project's own requirements downwards; asks nobody.
"""

import argparse
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "ulsdram"
CONSTRAINTS = ROOT / "infra" / "docker" / "constraints.txt"
UNKNOWN = "unknown"
_MAX_TEXT = 60
# Licences that a product may be linked with and shipped under its own licence.
_FREE = re.compile(
    r"apache|\bmit\b|\bbsd|\bisc\b|mozilla|mpl-|python software|psf|zlib|unlicense|hpnd|cnri"
    r"|public domain|0bsd|boost",
    re.IGNORECASE,
)
# Run-time libraries of the default torch build, under NVIDIA's own terms: they may be used and
# shipped in an image, not changed. A build of torch for the CPU has none of them.
_NVIDIA = re.compile(r"(nvidia|cuda)-")
_COPYLEFT = re.compile(r"gpl|general public|sspl|business source|proprietary", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Package:
    """One installed distribution."""

    name: str
    version: str
    licence: str
    requires: tuple[str, ...]


def project() -> dict[str, Any]:
    """The `project` table of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def requirements(extras: Iterable[str] = ("s3",)) -> list[str]:
    """What the project itself asks for."""
    described = project()
    wanted = [described["optional-dependencies"][extra] for extra in extras]
    return [*described["dependencies"], *(text for texts in wanted for text in texts)]


def packages() -> list[Package]:
    """All that an installation of the project brings in, sorted by name."""
    found: dict[str, Package] = {}
    first = [Requirement(text) for text in requirements()]
    waiting = [(canonicalize_name(one.name), frozenset(one.extras)) for one in first]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        distribution = metadata.distribution(name)
        needed = list(_requirements(distribution, wanted))
        known = found[name].requires if name in found else ()
        names = {*known, *(canonicalize_name(one.name) for one in needed)}
        licence = _licence(distribution)
        found[name] = Package(name, distribution.version, licence, tuple(sorted(names)))
        waiting += [(canonicalize_name(one.name), frozenset(one.extras)) for one in needed]
    return [found[name] for name in sorted(found)]


def _requirements(
    distribution: metadata.Distribution, extras: frozenset[str]
) -> Iterator[Requirement]:
    environment = {key: str(value) for key, value in default_environment().items()}
    for text in distribution.requires or []:
        one = Requirement(text)
        if one.marker is None or any(
            one.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
        ):
            yield one


def _licence(distribution: metadata.Distribution) -> str:
    """The expression, else the classifiers, else a short licence field."""
    fields = distribution.metadata
    expression = fields.get("License-Expression")
    if expression:
        return str(expression)
    prefix = "License :: "
    classifiers = [
        text.rsplit(" :: ", 1)[-1]
        for text in fields.get_all("Classifier") or []
        if text.startswith(prefix) and text.count("::") > 1
    ]
    text = " AND ".join(classifiers) or str(fields.get("License") or "").strip()
    first = text.splitlines()[0][:_MAX_TEXT] if text else ""
    return first or UNKNOWN


def constraints(found: list[Package]) -> str:
    """Exact versions, for `pip install -c`."""
    version = ".".join(map(str, sys.version_info[:2]))
    head = f"# Tested together on Python {version}; written by infra/security/dependencies.py.\n"
    return head + "".join(f"{one.name}=={one.version}\n" for one in found)


def verdict(one: Package) -> str:
    """`ok`: no further thought; `nvidia`: see above; `LOOK`: somebody has to read it."""
    if _NVIDIA.match(one.name):
        return "nvidia"
    is_free = _FREE.search(one.licence) and not _COPYLEFT.search(one.licence)
    return "ok" if is_free else "LOOK"


def sbom(found: list[Package], *, version: str) -> dict[str, Any]:
    """CycloneDX 1.6: components and who needs whom."""
    root = f"pkg:pypi/{PROJECT}@{version}"
    references = {one.name: _purl(one) for one in found}
    components = [
        {
            "type": "library",
            "bom-ref": _purl(one),
            "name": one.name,
            "version": one.version,
            "purl": _purl(one),
            "licenses": [{"license": {"name": one.licence}}],
        }
        for one in found
    ]
    needs = [
        {
            "ref": _purl(one),
            "dependsOn": [references[name] for name in one.requires if name in references],
        }
        for one in found
    ]
    top = {"type": "application", "bom-ref": root, "name": PROJECT, "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"timestamp": datetime.now(UTC).isoformat(), "component": top},
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": sorted(references.values())}, *needs],
    }


def _purl(one: Package) -> str:
    return f"pkg:pypi/{one.name}@{quote(one.version, safe='')}"


def audit(found: list[Package], advisories: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """Advisories (OSV format) that hit an installed version."""
    versions = {one.name: one.version for one in found}
    hits = []
    for advisory in advisories:
        if advisory.get("withdrawn"):
            continue
        for affected in advisory.get("affected", []):
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            is_ours = package.get("ecosystem") == "PyPI" and name in versions
            if is_ours and _is_hit(affected, versions[name]):
                summary = str(advisory.get("summary", ""))
                hit = {"package": name, "version": versions[name], "id": str(advisory["id"])}
                hits.append({**hit, "summary": summary})
                break
    return hits


def _is_hit(affected: dict[str, Any], version: str) -> bool:
    if version in affected.get("versions", []):
        return True
    ranges = [one for one in affected.get("ranges", []) if one.get("type") == "ECOSYSTEM"]
    return any(_is_inside(one["events"], Version(version)) for one in ranges)


def _is_inside(events: list[dict[str, str]], version: Version) -> bool:
    """OSV's rule: the events in order switch between hit and safe."""
    is_hit = False
    for event in events:
        for kind, text in event.items():
            bound = _version(text)
            if kind == "introduced" and (text == "0" or (bound and version >= bound)):
                is_hit = True
            elif bound and (
                (kind == "fixed" and version >= bound)
                or (kind == "last_affected" and version > bound)
            ):
                is_hit = False
    return is_hit


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def read_advisories(place: Path) -> Iterator[dict[str, Any]]:
    """OSV records of a JSON file or of all JSON files below a folder."""
    paths = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        yield from content if isinstance(content, list) else [content]


def parser() -> argparse.ArgumentParser:
    """The commands."""
    options = argparse.ArgumentParser(description=__doc__)
    commands = options.add_subparsers(dest="command", required=True)
    commands.add_parser("constraints", help="print the versions of this environment as pins")
    commands.add_parser("licences", help="print every licence; 1 if one needs a look")
    commands.add_parser("sbom", help="print a CycloneDX bill of materials")
    checked = commands.add_parser("audit", help="print known vulnerabilities; 1 if there are any")
    checked.add_argument(
        "--advisories",
        type=Path,
        required=True,
        help="OSV records (JSON): a file, or the unpacked export of the PyPI ecosystem",
    )
    return options


def main(argv: list[str] | None = None) -> int:
    """Print what was asked for; 1 when somebody has to look at it."""
    arguments = parser().parse_args(argv)
    found = packages()
    if arguments.command == "constraints":
        sys.stdout.write(constraints(found))
        return 0
    if arguments.command == "sbom":
        document = sbom(found, version=project()["version"])
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return 0
    if arguments.command == "licences":
        for one in found:
            sys.stdout.write(f"{one.name}\t{one.version}\t{one.licence}\t{verdict(one)}\n")
        return int("LOOK" in map(verdict, found))
    if not arguments.advisories.exists():
        sys.stderr.write(f"found no advisories at {arguments.advisories}; unpack an OSV export\n")
        return 2
    hits = audit(found, read_advisories(arguments.advisories))
    sys.stdout.write(json.dumps({"packages": len(found), "vulnerabilities": hits}, indent=1) + "\n")
    return int(bool(hits))


if __name__ == "__main__":
    sys.exit(main())
