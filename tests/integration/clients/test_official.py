"""The official Python client: typed, dynamic, watches, manifests, leader election."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kubernetes import client, config, dynamic, utils, watch
    from kubernetes.client.rest import ApiException
    from kubernetes.leaderelection import electionconfig, leaderelection
    from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

NS = "default"


@pytest.fixture
def api(kubeconfig: str) -> Iterator[client.ApiClient]:
    made = config.new_client_from_config(kubeconfig)
    yield made
    made.rest_client.pool_manager.clear()
    made.close()


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


def succeeded(status: client.V1Status | dict[str, str]) -> bool:
    """Newer clients give the Status of a deletion as it came."""
    return (status if isinstance(status, dict) else status.to_dict())["status"] == "Success"


def pod(name: str, container: str = "c") -> client.V1Pod:
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
        spec=client.V1PodSpec(containers=[client.V1Container(name=container, image="nginx:1")]),
    )


def test_typed_objects_come_and_go(core: client.CoreV1Api, name: str) -> None:
    made = core.create_namespaced_config_map(
        NS, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data={"a": "1"})
    )
    assert made.metadata.uid and made.metadata.managed_fields[0].manager == "OpenAPI-Generator"
    assert core.read_namespaced_config_map(name, NS).data == {"a": "1"}
    patched = core.patch_namespaced_config_map(name, NS, {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}
    made.data = {"a": "9"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map(name, NS, made)
    assert stale.value.status == 409 and "the object has been modified" in stale.value.body
    assert succeeded(core.delete_namespaced_config_map(name, NS))
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map(name, NS)
    assert gone.value.status == 404 and gone.value.reason == "Not Found"


def test_a_pod_runs_and_is_watched_to_its_end(core: client.CoreV1Api, name: str) -> None:
    made = core.create_namespaced_pod(NS, pod(name, "brief"))
    phases = ["Pending"] if made.status.phase == "Pending" else []
    stream = watch.Watch()
    for event in stream.stream(core.list_namespaced_pod, NS, label_selector=f"app={name}", timeout_seconds=20):
        if not phases or phases[-1] != event["object"].status.phase:
            phases.append(event["object"].status.phase)
        if (
            event["type"] == "MODIFIED"
            and event["object"].status.container_statuses
            and any(each.restart_count for each in event["object"].status.container_statuses)
        ):
            stream.stop()
    assert phases[:2] == ["Pending", "Running"]
    assert core.delete_namespaced_pod(name, NS, grace_period_seconds=0).metadata.name == name


def test_workloads_make_pods(api: client.ApiClient, core: client.CoreV1Api, name: str) -> None:
    apps = client.AppsV1Api(api)
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": name}), spec=pod(name).spec)
    spec = client.V1ReplicaSetSpec(
        replicas=2, selector=client.V1LabelSelector(match_labels={"app": name}), template=template
    )
    apps.create_namespaced_replica_set(NS, client.V1ReplicaSet(metadata=client.V1ObjectMeta(name=name), spec=spec))
    stream = watch.Watch()
    for event in stream.stream(
        apps.list_namespaced_replica_set, NS, field_selector=f"metadata.name={name}", timeout_seconds=20
    ):
        if event["object"].status.ready_replicas == 2:
            stream.stop()
    found = core.list_namespaced_pod(NS, label_selector=f"app={name}").items
    assert len(found) == 2 and {each.spec.node_name for each in found} == {"n1"}
    scaled = apps.patch_namespaced_replica_set_scale(name, NS, {"spec": {"replicas": 0}})
    assert scaled.spec.replicas == 0
    stream = watch.Watch()
    for event in stream.stream(
        apps.list_namespaced_replica_set, NS, field_selector=f"metadata.name={name}", timeout_seconds=20
    ):
        if not event["object"].status.replicas:
            stream.stop()
    apps.delete_namespaced_replica_set(name, NS, propagation_policy="Foreground")


def test_lists_come_in_chunks(core: client.CoreV1Api, name: str) -> None:
    for index in range(5):
        metadata = client.V1ObjectMeta(name=f"{name}-{index}", labels={"t": name})
        core.create_namespaced_config_map(NS, client.V1ConfigMap(metadata=metadata))
    seen, token = [], None
    while True:
        page = core.list_namespaced_config_map(NS, label_selector=f"t={name}", limit=2, _continue=token)
        seen += [each.metadata.name for each in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert seen == [f"{name}-{index}" for index in range(5)]
    core.delete_collection_namespaced_config_map(NS, label_selector=f"t={name}")
    assert core.list_namespaced_config_map(NS, label_selector=f"t={name}").items == []


def test_the_dynamic_client(api: client.ApiClient, name: str, tmp_path: Path) -> None:
    dyn = dynamic.DynamicClient(api, cache_file=str(tmp_path / "discovery"))
    maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
    made = maps.create(
        body={"metadata": {"name": name}, "data": {"a": "1"}, "kind": "ConfigMap", "apiVersion": "v1"}, namespace=NS
    )
    assert made.data.a == "1"
    applied = maps.server_side_apply(
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"b": "2"}},
        name=name,
        namespace=NS,
        field_manager="dyn",
    )
    assert applied.data.to_dict() == {"a": "1", "b": "2"}
    with pytest.raises(dynamic.exceptions.ConflictError, match="Apply failed with 1 conflict"):
        maps.server_side_apply(
            body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"b": "3"}},
            name=name,
            namespace=NS,
            field_manager="other",
        )
    assert [each.metadata.name for each in maps.get(namespace=NS, field_selector=f"metadata.name={name}").items] == [
        name
    ]
    for event in maps.watch(namespace=NS, name=name, timeout=10):
        assert event["object"].metadata.name == name
        break
    assert maps.delete(name=name, namespace=NS).status == "Success"
    with pytest.raises(dynamic.exceptions.NotFoundError):
        maps.get(name=name, namespace=NS)


def test_a_custom_kind_from_a_manifest(api: client.ApiClient, name: str, tmp_path: Path) -> None:
    group, plural = f"{name}.example.dev", "things"
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}}},
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    manifest = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": name}, "data": {"a": "1"}},
        {
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{group}"},
            "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": "Thing"}, "versions": [version]},
        },
    ]  # fmt: skip
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(manifest))
    utils.create_from_yaml(api, str(file))
    custom = client.CustomObjectsApi(api)
    made = custom.create_namespaced_custom_object(
        group,
        "v1",
        name,
        plural,
        {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": {"size": 1}},
    )
    assert made["metadata"]["generation"] == 1
    with pytest.raises(ApiException) as refused:
        custom.patch_namespaced_custom_object(group, "v1", name, plural, "x", {"spec": {"size": 0}})
    assert refused.value.status == 422 and "spec.size" in refused.value.body
    status = custom.patch_namespaced_custom_object_status(group, "v1", name, plural, "x", {"status": {"ok": True}})
    assert status["metadata"]["generation"] == 1
    client.CoreV1Api(api).delete_namespace(name)
    client.ApiextensionsV1Api(api).delete_custom_resource_definition(f"{plural}.{group}")
    with pytest.raises(utils.FailToCreateError):
        utils.create_from_yaml(
            api, yaml_objects=[manifest[1] | {"metadata": {"name": "m", "namespace": "no-such-namespace"}}]
        )


def test_refusals_read_as_kubernetes_writes_them(api: client.ApiClient, name: str) -> None:
    """To the letter: the client's own tests compare the body's text."""
    manifest = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "namespace": NS}}
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
    manifest["spec"] = {"suspend": True, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod}}}}
    utils.create_from_yaml(api, yaml_objects=[manifest])
    with pytest.raises(utils.FailToCreateError) as refused:
        utils.create_from_yaml(api, yaml_objects=[manifest])
    assert str(refused.value) == (
        'Error from server (Conflict): {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
        f'"message":"cronjobs.batch \\"{name}\\" already exists","reason":"AlreadyExists",'
        f'"details":{{"name":"{name}","group":"batch","kind":"cronjobs"}},"code":409}}\n'
    )
    client.BatchV1Api(api).delete_namespaced_cron_job(name, NS)


def test_leaders_are_elected(api: client.ApiClient, name: str, kubeconfig: str) -> None:
    config.load_kube_config(kubeconfig)
    led, lost = threading.Event(), threading.Event()
    lock = LeaseLock(name, NS, "me")

    def lead() -> None:
        led.set()

    settings = electionconfig.Config(
        lock, lease_duration=3, renew_deadline=2, retry_period=1, onstarted_leading=lead, onstopped_leading=lost.set
    )
    election = leaderelection.LeaderElection(settings)
    runner = threading.Thread(target=election.run, daemon=True)
    runner.start()
    assert led.wait(20)
    leases = client.CoordinationV1Api(api)
    assert leases.read_namespaced_lease(name, NS).spec.holder_identity.startswith("me")
    # Another takes the lease: the election is lost, and its thread ends.
    leases.patch_namespaced_lease(
        name, NS, {"spec": {"holderIdentity": "other", "renewTime": "2999-01-01T00:00:00.000000Z"}}
    )
    assert lost.wait(20)
    runner.join(20)
    assert not runner.is_alive()
