"""lightkube: typed models, generic resources, watches, apply, wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.apps_v1 import ReplicaSetSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import ReplicaSet
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Pod
from lightkube.types import CascadeType, PatchType


@pytest.fixture
def client(kubeconfig: str) -> Iterator[Client]:
    made = Client(config=KubeConfig.from_file(kubeconfig), field_manager="lightkube")
    yield made
    made._client._client.close()


def test_objects(client: Client, name: str) -> None:
    client.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels={"t": name}), data={"a": "1"}))
    assert client.get(ConfigMap, name).data == {"a": "1"}
    found = client.patch(ConfigMap, name, {"data": {"a": None, "b": "2"}}, patch_type=PatchType.MERGE)
    assert found.data == {"b": "2"}
    found.data = {"c": "3"}
    assert client.replace(found).data == {"c": "3"}
    assert [each.metadata.name for each in client.list(ConfigMap, labels={"t": name})] == [name]
    applied = client.apply(ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"d": "4"}))
    assert applied.data == {"c": "3", "d": "4"}
    with pytest.raises(ApiError) as refused:
        client.apply(
            ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"d": "5"}), field_manager="other"
        )
    assert refused.value.status.reason == "Conflict"
    taken = client.apply(
        ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"d": "5"}),
        field_manager="other",
        force=True,
    )
    assert taken.data == {"c": "3", "d": "5"}
    client.delete(ConfigMap, name)
    with pytest.raises(ApiError) as gone:
        client.get(ConfigMap, name)
    assert gone.value.status.code == 404


def test_workloads_and_watches(client: Client, name: str) -> None:
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels={"app": name}), spec=PodSpec(containers=[Container(name="c", image="nginx:1")])
    )
    spec = ReplicaSetSpec(replicas=1, selector=LabelSelector(matchLabels={"app": name}), template=template)
    client.create(ReplicaSet(metadata=ObjectMeta(name=name, namespace="default"), spec=spec))
    for _, found in client.watch(Pod, labels={"app": name}, server_timeout=20):
        if (
            found.status
            and found.status.conditions
            and any(each.type == "Ready" and each.status == "True" for each in found.status.conditions)
        ):
            break
    client.wait(Node, "n1", for_conditions=["Ready"])
    scaled = client.patch(ReplicaSet.Scale, name, {"spec": {"replicas": 0}}, patch_type=PatchType.MERGE)
    assert scaled.spec.replicas == 0
    for _, each in client.watch(ReplicaSet, fields={"metadata.name": name}, server_timeout=20):
        if each.status and not each.status.replicas:
            break
    client.delete(ReplicaSet, name, cascade=CascadeType.FOREGROUND)
    client.wait(Node, "n1", for_conditions=["Ready"])


def test_namespaces_drain(client: Client, name: str) -> None:
    made = client.create(Namespace(metadata=ObjectMeta(name=name)))
    client.create(ConfigMap(metadata=ObjectMeta(name="m", namespace=name)))
    client.delete(Namespace, name)
    for operation, _ in client.watch(
        Namespace, fields={"metadata.name": name}, server_timeout=20, resource_version=made.metadata.resourceVersion
    ):
        if operation == "DELETED":
            break
    with pytest.raises(ApiError):
        client.get(ConfigMap, "m", namespace=name)


def test_an_unknown_kind_is_not_found(client: Client) -> None:
    nothing = create_namespaced_resource("apps", "v1", "Nothing", "nothings")
    with pytest.raises(ApiError, match="could not find the requested resource"):
        list(client.list(nothing))
