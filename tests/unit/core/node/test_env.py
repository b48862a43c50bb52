from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from core.api import views
from core.node.env import (
    ConfigError,
    environment,
    expand,
    pod_field,
    resource_field,
    service_environment,
    wants_address,
)


class Known:
    def __init__(self, secrets: dict[str, dict[str, bytes]], config_maps: dict[str, dict[str, str]]) -> None:
        self.secrets, self.config_maps = secrets, config_maps

    def secret(self, namespace: str, name: str) -> views.Secret | None:
        data = self.secrets.get(name)
        return None if data is None else views.Secret(data={k: base64.b64encode(v).decode() for k, v in data.items()})

    def config_map(self, namespace: str, name: str) -> views.ConfigMap | None:
        data = self.config_maps.get(name)
        return None if data is None else views.ConfigMap(data=data)


POD = msgspec.convert(
    {"metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}}, "spec": {"nodeName": "n"}},
    views.Pod,
)


def env(
    container: dict[str, Any], known: Known | None = None, services: dict[str, str] | None = None
) -> dict[str, str]:
    found = msgspec.convert({"name": "c", **container}, views.Container)
    return environment(
        found, POD, known or Known({}, {}), address="1.2.3.4", host_ip="5.6.7.8", services=services or {}, allocatable={"cpu": "2", "memory": "1Gi"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "result"),
    [("$(A)", "1"), ("$(A)$(B)", "1$(B)"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$A ${A} $", "$A ${A} $"), ("x", "x")],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


def test_later_wins_and_references_go_backwards() -> None:
    found = env(
        {
            "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}],
            "env": [
                {"name": "A", "value": "$(LATER)-$(P_A)-$(S)"},
                {"name": "LATER", "value": "x"},
                {"name": "S", "value": "$(S)!"},
            ],
        },
        Known({"s": {"S": b"secret", "bad name": b"x"}}, {"m": {"A": "map"}}),
        {"S": "service", "X_PORT": "1"},
    )
    assert found == {"X_PORT": "1", "P_A": "map", "S": "secret!", "A": "$(LATER)-map-secret", "LATER": "x"}


def test_fields_and_resources() -> None:
    found = env(
        {
            "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}},
            "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
                {"name": "ALL", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
        }
    )
    assert found == {"IP": "1.2.3.4", "APP": "x", "MEM": "64", "CPU": "250", "ALL": "2"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "none"}}, "couldn't find key none in secret ns/s"),
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "binary"}}, "isn't UTF-8"),
        ({"fieldRef": {"fieldPath": "spec.none"}}, "no field 'spec.none'"),
        ({}, "unknown source"),
    ],
)
def test_what_is_missing_is_said(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        env({"env": [{"name": "A", "valueFrom": source}]}, Known({"s": {"k": b"v", "binary": b"\xff"}}, {}))


def test_optional_sources_may_be_missing() -> None:
    assert env(
        {
            "envFrom": [{"secretRef": {"name": "none", "optional": True}}],
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}}],
        }
    ) == {}  # fmt: skip


def test_labels_as_one_text() -> None:
    assert pod_field(POD, "metadata.labels", "", "") == 'app="x"'


def test_resources_are_rounded_up() -> None:
    container = msgspec.convert({"resources": {"limits": {"cpu": "1500m"}}}, views.Container)
    assert resource_field(container, "limits.cpu", "1", {}) == "2"


def test_services() -> None:
    def service(namespace: str, name: str, ip: str = "10.0.0.1") -> views.Service:
        spec = {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}
        return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, views.Service)

    services = [
        service("ns", "my-db"),
        service("other", "x"),
        service("default", "kubernetes"),
        service("ns", "headless", "None"),
    ]
    found = service_environment(services, "ns", True)
    assert found["MY_DB_SERVICE_HOST"] == "10.0.0.1"
    assert found["MY_DB_SERVICE_PORT_HTTP"] == "80"
    assert found["MY_DB_PORT_80_TCP_ADDR"] == "10.0.0.1"
    assert found["KUBERNETES_SERVICE_HOST"] == "10.0.0.1"
    assert not any(each.startswith(("X_", "HEADLESS")) for each in found)
    assert {each.partition("_")[0] for each in service_environment(services, "ns", False)} == {"KUBERNETES"}


def test_a_pod_that_wants_its_address_in_the_environment_is_known() -> None:
    def pod(path: str) -> views.Pod:
        variable = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}
        return msgspec.convert({"spec": {"containers": [{"name": "a", "env": [{"name": "B", "value": "1"}, variable]}]}}, views.Pod)  # fmt: skip

    assert wants_address(pod("status.podIP")) and wants_address(pod("status.podIPs"))
    assert not wants_address(pod("metadata.name"))
