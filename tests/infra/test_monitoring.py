"""Alerts and dashboard: every metric is one that the job or Ray exports; promtool where found."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.dashboard.modules.metrics import dashboards

from pipelines.nightly.report import GAUGES, prometheus_text

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "monitoring"
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAME = re.compile(r"\b(?:ulsdram|ray)_[a-zA-Z0-9_]+")


def rules() -> list[dict]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def job_metrics() -> dict[str, set[str]]:
    """What a run exports: metric -> labels."""
    check = {"name": "quarantine_rate", "found": 0.1, "limit": 0.5, "verdict": "passed"}
    summary = {"state": "published", "gate": [check], "by_status": {"ok": 1}}
    summary |= {"by_reason": {"no_picture": 1}, **{name: 1 for name, _ in GAUGES}}
    text = prometheus_text(summary, finished_at=1.0)
    found = re.findall(r"^(ulsdram_\w+)(?:\{(\w+)=.*\})? ", text, flags=re.MULTILINE)
    return {name: {label} - {""} for name, label in found}


def ray_metrics() -> set[str]:
    """What Ray's own dashboards are drawn from."""
    folder = Path(dashboards.__file__).parent
    return {name for path in folder.glob("*.py") for name in NAME.findall(path.read_text())}


def expressions() -> list[str]:
    texts = [rule["expr"] for rule in rules()]
    return texts + [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_every_metric_is_exported():
    known = job_metrics().keys() | ray_metrics()
    used = {name for text in expressions() for name in NAME.findall(text)}
    assert used - known == set()
    assert len(used) > 20


def test_labels_in_use_are_those_of_the_metric():
    exported = job_metrics()
    for text in expressions():
        for name, labels in re.findall(r"\b(ulsdram_\w+)\{([^}]*)\}", text):
            found = set(re.findall(r"(\w+)\s*=~?", labels))
            assert found <= exported[name] | {"table", "job"}, text


def test_the_alerts_that_a_platform_team_asked_for():
    names = {rule["alert"] for rule in rules()}
    assert names >= {
        "NightlyNoSuccess",
        "NightlyQuarantineRate",
        "NightlyGateFailed",
        "RaySpills",
        "RayWorkersRestart",
        "NightlyThroughputDrop",
    }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rules_are_whole(rule):
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / path).read_text(), flags=re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_dashboard_is_whole():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS))) <= variables
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert place["x"] + place["w"] <= 24


def test_prometheus_scrapes_what_the_rules_read():
    plan = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in plan["scrape_configs"]}
    assert plan["rule_files"] == ["rules.yaml"]
    assert jobs["pushgateway"]["honor_labels"] is True
    gateway = jobs["pushgateway"]["static_configs"][0]["targets"][0]
    recipe = (ROOT / "infra" / "k8s" / "base" / "recipes" / "nightly.toml").read_text()
    assert f'push_gateway = "http://{gateway}"' in recipe


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("command", ["check rules rules.yaml", "test rules rules_test.yaml"])
def test_promtool(command):
    done = subprocess.run(
        ["promtool", *command.split()], cwd=FOLDER, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
