"""What a Function renders to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.api import views
from core.apiserver.admission.podsecurity import violations
from faaslite.api.function import Function, validate
from faaslite.api.names import PORT
from faaslite.api.wire import ScalePolicy
from faaslite.controllers import resources

DIGEST, LAYER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def function(**spec: Any) -> Function:
    if spec.get("runtime") != "image":
        spec = {"package": {"digest": DIGEST}, **spec}
    return validate({"metadata": {"name": "hello", "namespace": "team"}, "spec": spec})


def pod(found: Function) -> views.PodTemplate:
    document = resources.replica_set(found, "hello-00002", resources.pod_template(found), "uid")
    return msgspec.convert(document["spec"]["template"], views.PodTemplate)


def environment(found: Function) -> dict[str, str]:
    return {each.name: each.value for each in pod(found).spec.containers[0].env}


def test_the_pod_of_a_python_function() -> None:
    found = pod(
        function(handler="app:make", package={"digest": DIGEST, "layer": LAYER}, secrets=["db", "a.b"], concurrency=3, timeout="1m30s",
                 env=[{"name": "SIZE", "value": "256"}], resources={"limits": {"memory": "64Mi"}})
    )  # fmt: skip
    (container,) = found.spec.containers
    assert (container.name, container.image) == ("function", "faaslite/python")
    assert [each.container_port for each in container.ports] == [PORT]
    assert container.resources.limits == {"memory": "64Mi"}
    assert container.termination_message_policy == "FallbackToLogsOnError"
    assert container.security_context["runAsNonRoot"] is True
    assert container.security_context["allowPrivilegeEscalation"] is False
    for probe in (container.startup_probe, container.readiness_probe):
        assert probe is not None
        assert probe.http_get == {"path": "/_/ready", "port": PORT}
    assert {each.name: each.mount_path for each in container.volume_mounts} == {
        "package": "/var/faaslite/package",
        "layer": "/var/faaslite/layer",
        "secret-0": "/var/run/secrets/faaslite/db",
        "secret-1": "/var/run/secrets/faaslite/a.b",
        "tmp": "/tmp",
    }
    assert all(each.read_only for each in container.volume_mounts if each.name != "tmp")
    volumes = {each.name: each for each in found.spec.volumes}
    assert volumes["package"].csi == {
        "driver": "packages.faaslite.dev",
        "readOnly": True,
        "volumeAttributes": {"digest": DIGEST},
    }
    assert volumes["layer"].csi["volumeAttributes"] == {"digest": LAYER}  # type: ignore[index]
    assert volumes["secret-1"].secret == {"secretName": "a.b"}
    assert found.spec.automount_service_account_token is False
    assert found.spec.termination_grace_period_seconds == 95
    assert any(
        each.key == "faaslite.dev/process-runtime" and each.effect == "NoSchedule" for each in found.spec.tolerations
    )
    assert found.metadata.labels == {"faaslite.dev/function": "hello", "faaslite.dev/revision": "hello-00002"}


def test_the_environment_of_the_runtime_protocol() -> None:
    found = environment(
        function(handler="app:make", concurrency=3, timeout=1.5, env=[{"name": "SIZE", "value": "256"}])
    )
    assert found == {
        "SIZE": "256",
        "PORT": str(PORT),
        "FAASLITE_HANDLER": "app:make",
        "FAASLITE_PACKAGE": "/var/faaslite/package",
        "FAASLITE_FUNCTION": "hello",
        "FAASLITE_NAMESPACE": "team",
        "FAASLITE_REVISION": "hello-00002",
        "FAASLITE_CONCURRENCY": "3",
        "FAASLITE_TIMEOUT": "1.5",
        "FAASLITE_MAX_BODY": str(100 * 1024 * 1024),
    }
    assert environment(function(secrets=["db"]))["FAASLITE_SECRETS"] == "/var/run/secrets/faaslite"
    assert environment(function(package={"digest": DIGEST, "layer": LAYER}))["FAASLITE_LAYER"] == "/var/faaslite/layer"


def test_the_pod_of_an_image() -> None:
    found = function(runtime="image", image="nginx:1")
    (container,) = pod(found).spec.containers
    assert container.image == "nginx:1"
    assert environment(found)["PORT"] == str(PORT)
    assert "FAASLITE_HANDLER" not in environment(found)
    assert container.lifecycle == {"preStop": {"sleep": {"seconds": 2}}}
    assert container.readiness_probe is not None
    assert container.readiness_probe.tcp_socket == {"port": PORT}
    assert "runAsNonRoot" not in container.security_context


@pytest.mark.parametrize("runtime", ["python", "node"])
def test_a_functions_pod_passes_the_restricted_level(runtime: str) -> None:
    """So that a namespace of any cluster can enforce it: nothing is asked of the node that it could refuse."""
    found = function(runtime=runtime, secrets=["db"], package={"digest": DIGEST, "layer": LAYER})
    template = resources.replica_set(found, "hello-00002", resources.pod_template(found), "uid")["spec"]["template"]
    assert list(violations(template, "restricted")) == []
    context = template["spec"]["containers"][0]["securityContext"]
    assert context["readOnlyRootFilesystem"] is True and context["runAsUser"] != 0


def test_the_pod_of_an_image_passes_the_baseline() -> None:
    found = function(runtime="image", image="nginx:1")
    template = resources.replica_set(found, "hello-00002", resources.pod_template(found), "uid")["spec"]["template"]
    assert list(violations(template, "baseline")) == []
    assert template["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def test_values_from_elsewhere() -> None:
    source = {"secretKeyRef": {"name": "db", "key": "url"}}
    found = pod(function(env=[{"name": "URL", "valueFrom": source}], envFrom=[{"secretRef": {"name": "db"}}]))
    assert found.spec.containers[0].env[0].value_from == source
    assert found.spec.containers[0].env_from == [{"secretRef": {"name": "db"}}]


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ({"handler": "b:c"}, True),
        ({"package": {"digest": LAYER}}, True),
        ({"env": [{"name": "A", "value": "2"}]}, True),
        ({"concurrency": 5}, True),
        ({"timeout": "31s"}, True),
        ({"resources": {"limits": {"cpu": 1}}}, True),
        ({"runtime": "node"}, True),
        ({"timeout": "30s"}, False),
        ({"scale": {"max": 5}}, False),
        ({"cron": [{"schedule": "@daily"}]}, False),
        ({"traffic": [{"revision": "latest", "percent": 100}]}, False),
        ({"async": {"retries": 9}}, False),
        ({"http": {"visibility": "cluster"}}, False),
    ],
)
def test_what_makes_a_new_revision(change: dict[str, Any], new: bool) -> None:
    before = resources.template_hash(resources.pod_template(function()))
    after = resources.template_hash(resources.pod_template(function(**change)))
    assert (before != after) is new


def test_the_replica_set_of_a_revision() -> None:
    found = function(scale={"min": 2, "max": 5, "initial": 1, "window": "30s"}, concurrency=10)
    template = resources.pod_template(found)
    document = resources.replica_set(found, "hello-00002", template, "uid")
    labels = {"faaslite.dev/function": "hello", "faaslite.dev/revision": "hello-00002"}
    assert document["spec"]["replicas"] == 2
    assert document["spec"]["selector"] == {"matchLabels": labels}
    assert document["metadata"]["labels"] == labels
    assert document["metadata"]["ownerReferences"][0] == {
        "apiVersion": "faaslite.dev/v1", "kind": "Function", "name": "hello", "uid": "uid", "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    annotations = document["metadata"]["annotations"]
    assert annotations["faaslite.dev/template-hash"] == resources.template_hash(template)
    policy = msgspec.json.decode(annotations["faaslite.dev/scale"], type=ScalePolicy)
    assert policy == ScalePolicy(target=7.0, min=2, max=5, idle=30.0, stable=30.0, initial=1, limit=10)


@pytest.mark.parametrize(
    ("scale", "replicas"),
    [({}, 1), ({"initial": 0}, 0), ({"initial": 3}, 3), ({"min": 2, "initial": 0}, 2), ({"min": 2, "initial": 3}, 3)],
)
def test_with_how_many_a_revision_starts(scale: dict[str, int], replicas: int) -> None:
    assert resources.initial_replicas(function(scale=scale)) == replicas


def test_a_revision_without_calls_needs_no_minimum() -> None:
    found = function(scale={"min": 2})
    assert resources.scale_policy(found).min == 2
    assert resources.scale_policy(found, live=False).min == 0
    assert resources.scale_policy(found, limit=4).limit == 4


def test_limits_are_read_back() -> None:
    found = function(concurrency=3, timeout="1m")
    document = resources.replica_set(found, "hello-00001", resources.pod_template(found), "uid")
    assert resources.limits_of(document["spec"]["template"]) == (3, 60.0)
    assert resources.limits_of({}) == (0, 30.0)


def test_the_service() -> None:
    document = resources.service(function(), "uid")
    assert document["spec"]["selector"] == {"faaslite.dev/function": "hello"}
    assert document["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}]
