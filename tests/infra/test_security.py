"""Dependencies: pins, licences, bill of materials, audit. Secrets: never in logs or reports."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import jsonschema
import pytest

from pipelines.command.run import run_command

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "infra" / "security" / "dependencies.py"


def load():
    spec = importlib.util.spec_from_file_location("dependencies", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["dependencies"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


dependencies = load()


@pytest.fixture(scope="module")
def found() -> list:
    return dependencies.packages()


def test_the_environment_is_the_pinned_one(found):
    """After an upgrade: dependencies.py constraints > infra/docker/constraints.txt"""
    pinned = dict(
        line.split("==")
        for line in dependencies.CONSTRAINTS.read_text().splitlines()
        if not line.startswith("#")
    )
    names = {one.name for one in found}
    assert {"ray", "torch", "deltalake", "s3fs", "polars"} <= names
    assert "pytest" not in names
    # versions may move on between two releases of the image; what is needed may not go unnoticed
    assert names <= pinned.keys()


def test_every_licence_is_known(found, capsys):
    looks = [one for one in found if dependencies.verdict(one) == "LOOK"]
    assert not looks
    assert dependencies.main(["licences"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found)
    assert all(len(line.split("\t")) == 4 for line in lines)


@pytest.mark.parametrize(
    ("licence", "verdict"),
    [
        ("Apache-2.0", "ok"),
        ("BSD-3-Clause AND MIT", "ok"),
        ("GPL-3.0-only", "LOOK"),
        ("MIT AND AGPL-3.0", "LOOK"),
        ("unknown", "LOOK"),
    ],
)
def test_verdicts(licence, verdict):
    assert dependencies.verdict(dependencies.Package("x", "1", licence, ())) == verdict


SBOM = {
    "type": "object",
    "required": ["bomFormat", "specVersion", "serialNumber", "metadata", "components"],
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "serialNumber": {"pattern": "^urn:uuid:[0-9a-f-]{36}$"},
        "components": {
            "type": "array",
            "items": {
                "required": ["type", "name", "version", "purl", "bom-ref", "licenses"],
                "properties": {"purl": {"pattern": "^pkg:pypi/[a-z0-9-]+@[^@]+$"}},
            },
        },
    },
}


def test_the_bill_of_materials_is_whole(capsys):
    assert dependencies.main(["sbom"]) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SBOM)
    references = {one["bom-ref"] for one in document["components"]}
    assert len(references) == len(document["components"])
    for entry in document["dependencies"]:
        assert set(entry["dependsOn"]) <= references


def advisory(name: str, *events: dict, **more) -> dict:
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    return {"id": "TEST-1", "summary": "bad", "affected": [affected], **more}


@pytest.mark.parametrize(
    ("one", "is_hit"),
    [
        (advisory("ray", {"introduced": "0"}), True),
        (advisory("Ray", {"introduced": "0"}, {"fixed": "99"}), True),
        (advisory("ray", {"introduced": "0"}, {"fixed": "2.60.0"}), False),
        (advisory("ray", {"introduced": "0"}, {"last_affected": "2.60.0"}), True),
        (advisory("ray", {"introduced": "99"}), False),
        (advisory("ray", {"introduced": "0"}, withdrawn="2026-01-01"), False),
        (advisory("not-installed", {"introduced": "0"}), False),
    ],
)
def test_audit(one, is_hit, tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(one))
    ray = dependencies.Package("ray", "2.60.0", "Apache-2.0", ())
    assert bool(dependencies.audit([ray], dependencies.read_advisories(tmp_path))) == is_hit
    assert dependencies.main(["audit", "--advisories", str(tmp_path / "none")]) == 2
    assert "found no advisories" in capsys.readouterr().err


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "RAY_AUTH_TOKEN": "5f2b8c1de07a49d3b6a1",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLETOKEN",
}


def test_secrets_never_reach_logs_or_reports(monkeypatch, tmp_path, capsys):
    """A run that throws with everything secret in its message: log, line, summary, file."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    told = " ".join(SECRETS.values()) + " s3://key:hunter2@host/x auth_token=abcdef password: pw123"

    def fail(_: list[str] | None) -> dict:
        raise OSError(f"cannot read with {told}")

    with pytest.raises(SystemExit) as ended:
        run_command(fail, ["--summary-out", str(tmp_path / "s.json"), "--verbose"])
    assert ended.value.code == 1
    heard = capsys.readouterr()
    everything = heard.out + heard.err + (tmp_path / "s.json").read_text()
    for secret in (*SECRETS.values(), "hunter2", "abcdef", "pw123"):
        assert secret not in everything
    assert "***" in everything


def test_a_summary_hides_secret_fields(capsys):
    with pytest.raises(SystemExit):
        run_command(lambda _: {"auth_token": "abc", "storage": {"secret_access_key": "x"}}, [])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["auth_token"] == summary["storage"]["secret_access_key"] == "***"


def test_nothing_from_storage_is_unpickled():
    """Models are safetensors and JSON; pickle stands only between the workers of one run."""
    loads = re.compile(r"\b(?:pickle|cloudpickle|joblib|dill)\.loads?\(|torch\.load\(|yaml\.load\(")
    places = [
        path
        for name in ("jobs", "pipelines", "ulsdram_core")
        for path in (ROOT / name).rglob("*.py")
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in places
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if loads.search(line) and "weights_only=True" not in line
    ]
    # what one worker hands to the next, as Ray itself does, never a file
    assert [place.partition(":")[0] for place in found] == [
        "pipelines/nightly/work/ray_executor.py"
    ]


def test_nothing_secret_is_kept_in_the_project():
    pattern = re.compile(r"(?:AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY)")
    for path in (ROOT / "infra").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert not pattern.search(path.read_text(encoding="utf-8")), path
