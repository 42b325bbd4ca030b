"""The judge of the manifests must itself be able to say no."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.schema import wrong


def service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}


@pytest.mark.parametrize(
    "spec",
    [
        {"ports": [{"port": 80, "targetPort": "http"}]},
        {"ports": [{"port": 80, "targetPort": 8080}], "selector": {"a": "b"}},
    ],
)
def test_what_is_right_passes(spec: dict[str, Any]) -> None:
    assert wrong(service(**spec)) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"port": []}, "there is no field port"),
        ({"ports": [{"targetPort": 80}]}, "port is missing"),
        ({"ports": [{"port": "80"}]}, "is no"),
        ({"ports": [{"port": True}]}, "is no"),
        ({"ports": [{"port": 80, "targetPort": []}]}, "is no"),
        ({"ports": {"port": 80}}, "is no"),
        ({"ports": None}, "is no"),
        ({"selector": {"a": 1}}, "is no"),
    ],
)
def test_what_is_wrong_does_not(spec: dict[str, Any], said: str) -> None:
    (found,) = wrong(service(**spec))
    assert said in found
