"""As much of kustomize as our overlays use, so that they can be looked at where there is no kubectl: resources, a
namespace, generated ConfigMaps and JSON patches. What it does not know, it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]
KNOWN: Final = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "patches"}


def built(folder: Path) -> list[Object]:
    """What `kubectl kustomize` prints, less the suffixes of generated names."""
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(wanted) <= KNOWN, f"this knows nothing of {set(wanted) - KNOWN}"
    objects: list[Object] = []
    for resource in wanted["resources"]:
        path = (folder / resource).resolve()
        objects += built(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for made in wanted.get("configMapGenerator", ()):
        assert set(made) == {"name", "files"}
        data = {file: (folder / file).read_text() for file in made["files"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": data})
    for patch in wanted.get("patches", ()):
        found = [each for each in objects if matches(each, patch["target"])]
        assert found, f"nothing is {patch['target']}"
        for each in found:
            for operation in yaml.safe_load(patch["patch"]):
                apply(each, operation)
    for each in objects:
        if each["kind"] != "Namespace":
            each["metadata"]["namespace"] = wanted["namespace"]
    return objects


def matches(each: Object, target: dict[str, str]) -> bool:
    return bool(each["kind"] == target["kind"] and each["metadata"]["name"] == target["name"])


def apply(document: Object, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902). Raises where its path leads nowhere."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    place: Any = document
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    value = copy.deepcopy(operation.get("value"))
    match operation["op"], place:
        case "add", list():
            place.insert(len(place) if last == "-" else int(last), value)
        case "add", dict():
            place[last] = value
        case "replace", list():
            place[int(last)] = value
        case "replace", dict():
            assert last in place, operation
            place[last] = value
        case "remove", dict():
            del place[last]
        case other:
            raise AssertionError(f"this knows nothing of {other[0]}")
