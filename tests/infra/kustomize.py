"""The part of Kustomize that infra/k8s uses: resources, config maps, namespace, JSON patches.

Written small and strict: a field or an operation that it does not know is an error. Where kubectl
is installed, a test compares both.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
_FIELDS = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "configMapGenerator",
    "generatorOptions",
    "patches",
}
_CLUSTER_WIDE = {"Namespace"}


def load_objects(path: Path) -> list[Object]:
    """The documents of one YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def render(folder: Path) -> list[Object]:
    """All objects of an overlay or a base."""
    (plan,) = load_objects(folder / "kustomization.yaml")
    unknown = plan.keys() - _FIELDS
    if unknown:
        raise ValueError(f"found {sorted(unknown)} in {folder}/kustomization.yaml")
    objects: list[Object] = []
    for name in plan.get("resources", []):
        place = folder / name
        objects += render(place.resolve()) if place.is_dir() else load_objects(place)
    for generated in plan.get("configMapGenerator", []):
        objects = _with_config_map(objects, generated, folder)
    for patch in plan.get("patches", []):
        targets = [one for one in objects if _is_target(one, patch["target"])]
        if not targets:
            raise ValueError(f"found nothing that {patch['target']} names")
        for target in targets:
            for operation in yaml.safe_load(patch["patch"]):
                apply(target, operation)
    for one in objects:
        _put_into(one, plan.get("namespace"))
    return objects


def apply(target: Object, operation: Object) -> None:
    """One remove or replace of a JSON patch; the path must be there."""
    *parents, last = operation["path"].strip("/").split("/")
    place: Any = target
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    key = int(last) if isinstance(place, list) else last
    _ = place[key]  # it must be there
    if operation["op"] == "remove":
        del place[key]
    elif operation["op"] == "replace":
        place[key] = copy.deepcopy(operation["value"])
    else:
        raise ValueError(f"found operation {operation['op']}")


def _with_config_map(objects: list[Object], generated: Object, folder: Path) -> list[Object]:
    data = dict(one.split("=", 1) for one in generated.get("literals", []))
    for entry in generated.get("files", []):
        key, _, path = entry.rpartition("=")
        data[key or Path(path).name] = (folder / path).read_text(encoding="utf-8")
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": generated["name"]},
        "data": data,
    }
    others = [one for one in objects if not _is_target(one, _target(made))]
    is_replacing = generated.get("behavior") == "replace"
    if is_replacing != (len(others) < len(objects)):
        raise ValueError(f"found config map {generated['name']} twice, or nothing to replace")
    return [*others, made]


def _target(one: Object) -> Object:
    return {"kind": one["kind"], "name": one["metadata"]["name"]}


def _is_target(one: Object, target: Object) -> bool:
    return _target(one) == target


def _put_into(one: Object, namespace: str | None) -> None:
    if namespace is None or one["kind"] in _CLUSTER_WIDE:
        return
    one["metadata"]["namespace"] = namespace
    for subject in one.get("subjects", []):
        subject["namespace"] = namespace
