"""Kubernetes manifests: valid offline, misspelt fields fail, least rights, secrets by reference."""

import copy
import shutil
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from job_help import missing_options
from kustomize import render
from manifests import check, cluster_spec, pod_templates

from pipelines.nightly.settings import load_nightly_config

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "infra" / "k8s"
OVERLAYS = ("small", "large")
INVALID = (jsonschema.ValidationError, kubernetes_validate.ValidationError)


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request) -> list[dict]:
    return render(K8S / "overlays" / request.param)


def pick(objects: list[dict], kind: str) -> dict:
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def test_every_object_is_valid(objects):
    kinds = {one["kind"] for one in objects}
    assert kinds >= {"CronJob", "RayJob", "RayCluster", "NetworkPolicy", "Role", "ConfigMap"}
    for one in objects:
        check(one)
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "ulsdram"


@pytest.mark.parametrize(
    ("kind", "path", "key"),
    [
        ("RayJob", (), "shutdownAfterJobFinishs"),
        ("RayJob", ("rayClusterSpec",), "enableInTreeAutoscalling"),
        ("RayJob", ("rayClusterSpec", "workerGroupSpecs", 0), "maxReplica"),
        ("RayJob", ("rayClusterSpec", "headGroupSpec", "template", "spec"), "containres"),
        ("RayCluster", ("authOptions",), "secretname"),
        ("CronJob", (), "concurencyPolicy"),
        ("CronJob", ("jobTemplate", "spec"), "backofLimit"),
        ("CronJob", ("jobTemplate", "spec", "template", "spec", "containers", 0), "imagee"),
        ("NetworkPolicy", (), "podSelektor"),
    ],
)
def test_a_misspelt_field_fails(objects, kind, path, key):
    one = copy.deepcopy(next(one for one in objects if one["kind"] == kind))
    check(one)
    place = one["spec"]
    for part in path:
        place = place[part]
    place[key] = {}
    with pytest.raises(INVALID):
        check(one)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_renders_the_same(overlay):
    done = subprocess.run(
        ["kubectl", "kustomize", K8S / "overlays" / overlay], capture_output=True, text=True
    )
    if done.returncode and "kustomize" not in done.stderr:
        pytest.skip(f"kubectl does not run here: {done.stderr[:100]}")
    assert done.returncode == 0, done.stderr

    def key(one: dict) -> tuple:
        return one["kind"], one["metadata"]["name"]

    theirs = sorted(yaml.safe_load_all(done.stdout), key=key)
    assert theirs == sorted(render(K8S / "overlays" / overlay), key=key)


def test_the_night_runs_once_and_its_exit_code_counts(objects):
    spec = pick(objects, "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    rayjob = pick(objects, "RayJob")["spec"]
    assert job["activeDeadlineSeconds"] > rayjob["activeDeadlineSeconds"]
    assert (rayjob["suspend"], rayjob["backoffLimit"]) == (True, 0)
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    assert rules["FailJob"]["onExitCodes"]["values"] == [1, 2]
    (container,) = job["template"]["spec"]["containers"]
    assert container["args"][:2] == ["--template", pick(objects, "RayJob")["metadata"]["name"]]


def test_ray_and_python_are_those_of_the_tests(objects):
    for one in objects:
        if one["apiVersion"] == "ray.io/v1":
            assert cluster_spec(one)["rayVersion"] == ray.__version__


def test_rights_are_the_least(objects):
    (role,) = [one for one in objects if one["kind"] == "Role"]
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}
    ]
    assert not any(one["kind"] in ("ClusterRole", "ClusterRoleBinding") for one in objects)
    for one in objects:
        for template in pod_templates(one):
            spec = template["spec"]
            # a head without a named account gets one from the operator, for the autoscaler
            is_head = spec["containers"][0]["name"] == "ray-head"
            is_starter = spec.get("serviceAccountName") == "ulsdram-starter"
            assert is_head or spec["automountServiceAccountToken"] == is_starter


def test_pods_meet_the_restricted_standard(objects):
    for one in objects:
        for template in pod_templates(one):
            pod = template["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False
                assert context["readOnlyRootFilesystem"] is True
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
                assert "memory" in container["resources"]["limits"]


def test_secrets_are_only_named(objects):
    assert not any(one["kind"] == "Secret" for one in objects)
    settings = next(one for one in objects if one["metadata"]["name"] == "ulsdram-settings")
    assert not any("KEY" in key or "SECRET" in key for key in settings["data"])
    job = pick(objects, "RayJob")
    assert cluster_spec(job)["authOptions"] == {
        "mode": "token",
        "secretName": "ulsdram-ray-token",
    }
    for template in pod_templates(job)[:-1]:
        sources = template["spec"]["containers"][0]["envFrom"]
        assert {"secretRef": {"name": "ulsdram-storage"}} in sources


def test_the_network_is_closed_by_default(objects):
    policies = {one["metadata"]["name"]: one for one in objects if one["kind"] == "NetworkPolicy"}
    assert policies["deny-all"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    takes_jobs = [
        rule
        for rule in policies["ray"]["spec"]["ingress"]
        if {"protocol": "TCP", "port": 8265} in rule.get("ports", [])
    ]
    (rule,) = takes_jobs
    assert all("namespaceSelector" in one or "podSelector" in one for one in rule["from"])


def test_config_maps_and_mounts_exist(objects):
    maps = {one["metadata"]["name"] for one in objects if one["kind"] == "ConfigMap"}
    for one in objects:
        for template in pod_templates(one):
            volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
            for volume in volumes.values():
                assert volume.get("configMap", {"name": "ulsdram-recipes"})["name"] in maps
            for container in template["spec"]["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()


def test_recipes_are_the_jobs_own(objects, tmp_path):
    recipes = next(one for one in objects if one["metadata"]["name"] == "ulsdram-recipes")
    for name, text in recipes["data"].items():
        path = tmp_path / name
        path.write_text(text)
        config = load_nightly_config(str(path))
        assert config.push_gateway == tomllib.loads(text)["push_gateway"]


def test_the_entrypoint_is_a_command_of_this_release(objects):
    words = pick(objects, "RayJob")["spec"]["entrypoint"].split()
    assert words[0] == "python"
    script = ROOT / words[1].removeprefix("/app/")
    assert missing_options(script, words[2:]) == []
    settings = next(one for one in objects if one["metadata"]["name"] == "ulsdram-settings")
    assert {word[1:] for word in words if word.startswith("$")} <= settings["data"].keys()
