"""Images: linted, non-root, with the versions that were tested together."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "docker"
DOCKERFILES = [FOLDER / "cpu.Dockerfile", FOLDER / "gpu.Dockerfile"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments), continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in pairs]


def pins() -> dict[str, str]:
    lines = (FOLDER / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.stem)
def steps(request) -> list[tuple[str, str]]:
    return instructions(request.param)


def test_known_instructions_only(steps):
    assert {name for name, _ in steps} <= {
        "FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "CMD",
    }  # fmt: skip


def test_the_base_is_pinned_and_is_the_tested_python(steps):
    bases = {rest.split()[0] for name, rest in steps if name == "FROM"}
    (base,) = bases
    image, _, tag = base.partition(":")
    assert image == "python"
    assert re.fullmatch(r"3\.1[12]\.\d+-slim-\w+", tag)
    tested = re.search(r"Python (3\.\d+)", (FOLDER / "constraints.txt").read_text())
    assert tag.startswith(tested[1] + ".")


def test_the_last_user_is_not_root(steps):
    final = max(place for place, (name, _) in enumerate(steps) if name == "FROM")
    users = [rest for name, rest in steps[final:] if name == "USER"]
    assert users[-1:] == ["1000:1000"]
    assert [name for name, _ in steps[-2:]] == ["USER", "CMD"]


def test_every_installation_is_constrained_and_leaves_no_cache(steps):
    environment = " ".join(rest for name, rest in steps if name == "ENV")
    assert "PIP_NO_CACHE_DIR=1" in environment
    for name, rest in steps:
        if name == "RUN" and "pip install" in rest:
            calls = re.findall(r"pip install [^;&]*", rest)
            assert all("-c /build/constraints.txt" in call for call in calls), rest
        if name == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest


def test_what_is_copied_is_there_and_reaches_the_build(steps):
    ignores = (FOLDER / "cpu.Dockerfile.dockerignore").read_text().split()
    assert ignores == (FOLDER / "gpu.Dockerfile.dockerignore").read_text().split()
    for name, rest in steps:
        if name == "COPY" and not rest.startswith("--from"):
            *sources, _ = shlex.split(rest)
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignores
    assert ignores[0] == "**"
    assert not any(secret in " ".join(rest for _, rest in steps) for secret in ("SECRET", "TOKEN="))


def test_code_comes_after_the_dependencies(steps):
    order = [rest for name, rest in steps if name in ("COPY", "RUN")]
    environment = order.index("--from=build /opt/venv /opt/venv")
    assert all(order.index(f"{code} /app/{code}") > environment for code in ("jobs", "pipelines"))


def test_constraints_meet_the_projects_metadata():
    found = pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["s3"]]:
        one = Requirement(text)
        version = found[canonicalize_name(one.name)]
        assert one.specifier.contains(version), f"{one} against {version}"


def test_constraints_hold_every_dependency_of_a_dependency():
    found = pins()
    for name, version in found.items():
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # another platform's
        for text in distribution.requires or []:
            one = Requirement(text)
            if one.marker is not None and not one.marker.evaluate({"extra": ""}):
                continue
            pinned = found.get(canonicalize_name(one.name))
            assert pinned is not None, f"{name} needs {one.name}, which is not pinned"
            if distribution.version == version:
                assert one.specifier.contains(pinned, prereleases=True), f"{name} needs {one}"


def test_ray_is_the_clients():
    assert pins()["ray"] == metadata.version("ray")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint(path):
    done = subprocess.run(["hadolint", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_pip_step_resolves_to_the_constraints_in_a_clean_environment(tmp_path):
    """What the image's pip step would install, found out without installing it."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    done = subprocess.run(
        [
            tmp_path / "clean" / "bin" / "python", "-m", "pip", "install", "--quiet", "--dry-run",
            "--report", tmp_path / "report.json", "-c", FOLDER / "constraints.txt", f"{ROOT}[s3]",
        ],
        capture_output=True,
        text=True,
        timeout=840,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    chosen = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in report["install"]
    }
    assert chosen.pop("ulsdram")
    expected = pins()
    assert {name: chosen[name] for name in chosen} == {name: expected[name] for name in chosen}
    assert chosen.keys() | {"setuptools"} == expected.keys() | {"setuptools"}
