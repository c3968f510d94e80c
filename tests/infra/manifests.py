"""Offline checks of manifests: Kubernetes' own schemas, and one for the Ray fields used here.

The Ray schema names what infra/k8s uses of ray.io/v1 (KubeRay 1.5 and later), no more: an unknown
field is an error, as a misspelt one would be dropped in silence by the API server.
"""

from typing import Any

import jsonschema
import kubernetes_validate

KUBERNETES = "1.33"
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}
_TEMPLATE = {"type": "object", "required": ["spec"]}  # checked as a PodTemplate, see below
_RESOURCES = {"type": "object"}


def _closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_GROUP = {"rayStartParams": _TEXTS, "template": _TEMPLATE}
CLUSTER = _closed(
    ("headGroupSpec", "rayVersion", "authOptions"),
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_closed(
        ("mode", "secretName"), mode={"const": "token"}, secretName={"type": "string"}
    ),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_closed(
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=_COUNT,
        resources=_RESOURCES,
        securityContext={"type": "object"},
    ),
    headGroupSpec=_closed(("rayStartParams", "template"), **_GROUP),
    workerGroupSpecs={
        "type": "array",
        "minItems": 1,
        "items": _closed(
            ("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            groupName={"type": "string"},
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            **_GROUP,
        ),
    },
)
JOB = _closed(
    ("entrypoint", "rayClusterSpec", "shutdownAfterJobFinishes", "activeDeadlineSeconds"),
    suspend={"type": "boolean"},
    entrypoint={"type": "string"},
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
    backoffLimit=_COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes={"const": True},  # what a suspended RayJob asks for
    ttlSecondsAfterFinished=_COUNT,
    submitterConfig=_closed(backoffLimit=_COUNT),
    submitterPodTemplate=_TEMPLATE,
    rayClusterSpec=CLUSTER,
)
_RAY = {"RayCluster": CLUSTER, "RayJob": JOB}
_METADATA = _closed(
    ("name",),
    name={"type": "string", "maxLength": 47},
    namespace={"type": "string"},
    labels=_TEXTS,
    annotations=_TEXTS,
    ownerReferences={"type": "array"},
)


def check(one: dict[str, Any]) -> None:
    """Raise jsonschema's or kubernetes_validate's ValidationError for an object that is wrong."""
    if one["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        return
    schema = _closed(
        ("metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": one["kind"]},
        metadata=_METADATA,
        spec=_RAY[one["kind"]],
    )
    jsonschema.validate(one, schema)
    for template in pod_templates(one):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def cluster_spec(one: dict[str, Any]) -> dict[str, Any]:
    """The cluster of a RayCluster or RayJob."""
    spec: dict[str, Any] = one["spec"]
    return spec if one["kind"] == "RayCluster" else spec["rayClusterSpec"]


def pod_templates(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods that an object starts."""
    if one["kind"] == "CronJob":
        return [one["spec"]["jobTemplate"]["spec"]["template"]]
    if one["apiVersion"] != "ray.io/v1":
        return []
    spec = cluster_spec(one)
    templates = [spec["headGroupSpec"]["template"]]
    templates += [group["template"] for group in spec["workerGroupSpecs"]]
    submitter = one["spec"].get("submitterPodTemplate")
    return [*templates, submitter] if submitter else templates
