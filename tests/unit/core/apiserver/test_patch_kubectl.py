"""What the real kubectl computes from our OpenAPI documents and sends as patches, applied."""

import msgspec
import pytest

from core.apiserver.patch import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH

pytestmark = pytest.mark.kubectl

PATH = "/apis/apps/v1/namespaces/default/replicasets/web"


def manifest(*containers: dict[str, object]) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}},
        },
    }


async def test_apply_merges_containers_by_name(kubectl) -> None:
    first = manifest({"name": "a", "image": "1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "1"})
    live = msgspec.json.decode(msgspec.json.encode(first))
    live["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": msgspec.json.encode(first).decode()
    }
    live["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    kubectl.recorder.objects[PATH] = live
    second = manifest({"name": "c", "image": "1"}, {"name": "a", "image": "2", "ports": [{"containerPort": 81}]})
    await kubectl("apply", "-f", "-", stdin=msgspec.json.encode(second).decode())
    ((method, path, content_type, raw),) = kubectl.recorder.received
    assert (method, content_type) == ("PATCH", STRATEGIC_PATCH)
    assert path.startswith(PATH)
    sent = msgspec.json.decode(raw)["spec"]["template"]["spec"]
    assert sent["$setElementOrder/containers"] == [{"name": "c"}, {"name": "a"}]
    assert kubectl.recorder.objects[PATH]["spec"]["template"]["spec"]["containers"] == [
        {"name": "c", "image": "1"},
        {"name": "a", "image": "2", "ports": [{"containerPort": 81}], "terminationMessagePath": "/dev/termination-log"},
    ]


async def test_set_image_label_and_patch(kubectl) -> None:
    kubectl.recorder.objects[PATH] = manifest({"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"})
    await kubectl("set", "image", "rs/web", "b=2")
    await kubectl("label", "rs", "web", "x=y")
    await kubectl("patch", "rs", "web", "--type=json", "-p", '[{"op": "add", "path": "/spec/replicas", "value": 3}]')
    assert [each[2] for each in kubectl.recorder.received] == [STRATEGIC_PATCH, MERGE_PATCH, JSON_PATCH]
    found = kubectl.recorder.objects[PATH]
    assert found["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "image": "1", "args": ["x"]},
        {"name": "b", "image": "2"},
    ]
    assert found["metadata"]["labels"] == {"x": "y"}
    assert found["spec"]["replicas"] == 3
