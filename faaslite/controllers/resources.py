"""What a Function becomes: Service, Pod template, ReplicaSet of a revision, scale policy. Pure; the controller compares and writes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from core.api.kinds import REPLICA_SET, SERVICE
from core.api.meta import Document, controller_reference
from faaslite.api import names
from faaslite.api.function import Function
from faaslite.api.versions import pinned
from faaslite.api.wire import Floor, ScalePolicy

__all__ = [
    "image_of", "limits_of", "owner", "pod_template", "policy_text", "process_tolerations", "replica_set", "scale_policy", "service", "template_hash",
]  # fmt: skip

MAX_BODY = 100 * 1024 * 1024
DRAIN = 5.0
"""Seconds over the function's timeout that an instance has to end."""
PRE_STOP = 2
"""Seconds for which an `image` Pod goes on serving while gateways learn that it goes."""
LIVE_PERIOD = 20
"""Seconds between looks at whether an instance answers at all."""
USER = 65532
"""As whom our runtime images run their function: a user that owns nothing (Debian's and distroless' `nonroot`)."""
TMP = "/tmp"  # noqa: S108 - the container's own
TMP_SIZE = "512Mi"
NODE_LOSS = 30
"""Seconds that Pods stay on a node that is lost."""

_encode = msgspec.json.Encoder(order="sorted").encode


def image_of(function: Function) -> str:
    """`faaslite/python`, `faaslite/python:3.12`, or the image that is asked for."""
    spec = function.spec
    if spec.runtime == "image":
        return spec.image
    language = spec.runtime.rstrip("0123456789.")
    version = spec.runtime.removeprefix(language)
    return f"faaslite/{language}:{version}" if version else f"faaslite/{language}"


def owner(name: str, uid: str) -> Document:
    return controller_reference(names.FUNCTION, name, uid)


def _seconds(value: float) -> str:
    return f"{value:g}"


def _environment(function: Function) -> list[Document]:
    spec = function.spec
    found: list[Document] = []
    for each in spec.env:
        entry: Document = {"name": each.name}
        if each.value_from is not None:
            entry["valueFrom"] = each.value_from
        else:
            entry["value"] = each.value
        found.append(entry)
    values = {
        "PORT": str(names.PORT),
        "FAASLITE_FUNCTION": function.name,
        "FAASLITE_NAMESPACE": function.namespace,
        "FAASLITE_CONCURRENCY": str(spec.concurrency),
        "FAASLITE_TIMEOUT": _seconds(spec.timeout),
        "FAASLITE_MAX_BODY": str(MAX_BODY),
    }
    if spec.runtime != "image":
        values["FAASLITE_HANDLER"] = spec.handler
        values["FAASLITE_PACKAGE"] = names.PACKAGE_PATH
        if spec.package is not None and spec.package.layer:
            values["FAASLITE_LAYER"] = _layer_path(function)
    if spec.secrets:
        values["FAASLITE_SECRETS"] = names.SECRETS_PATH
    return found + [{"name": name, "value": value} for name, value in values.items()]


def _layer_path(function: Function) -> str:
    return names.MODULES_PATH if function.spec.runtime.startswith("node") else names.LAYER_PATH


def _archive(name: str, digest: str) -> Document:
    csi = {"driver": names.PACKAGE_DRIVER, "readOnly": True, "volumeAttributes": {"digest": digest}}
    return {"name": name, "csi": csi}


def _volumes(function: Function) -> tuple[list[Document], list[Document]]:
    """Volumes and their mounts."""
    volumes: list[Document] = []
    mounts: list[Document] = []
    package = function.spec.package
    if package is not None:
        volumes.append(_archive("package", package.digest))
        mounts.append({"name": "package", "mountPath": names.PACKAGE_PATH, "readOnly": True})
        if package.layer:
            volumes.append(_archive("layer", package.layer))
            mounts.append({"name": "layer", "mountPath": _layer_path(function), "readOnly": True})
    for number, secret in enumerate(function.spec.secrets):
        # A Secret's name may be longer than a volume's, and have dots.
        volumes.append({"name": f"secret-{number}", "secret": {"secretName": secret}})
        mount = {"name": f"secret-{number}", "mountPath": f"{names.SECRETS_PATH}/{secret}", "readOnly": True}
        mounts.append(mount)
    if function.spec.runtime != "image":
        # The root file system is read-only. In memory, so that it is bounded wherever the Pod runs.
        volumes.append({"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": TMP_SIZE}})
        mounts.append({"name": "tmp", "mountPath": TMP})
    return volumes, mounts


def _container(function: Function, mounts: list[Document]) -> Document:
    spec = function.spec
    probe: Document = {"httpGet": {"path": names.READY_PATH, "port": names.PORT}}
    security: Document = {"allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}}
    if spec.runtime == "image":
        # Any server will do, so all that can be asked is whether it listens; it may need to be root in its container.
        probe = {"tcpSocket": {"port": names.PORT}}
    else:
        security |= {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
    container: Document = {
        "name": names.CONTAINER_NAME,
        "image": image_of(function),
        # A revision is one image: what its first Pod got, the others get, and what was built on the node need be in no registry.
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": names.PORT, "protocol": "TCP"}],
        "env": _environment(function),
        "startupProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": security,
    }
    if spec.runtime != "image":
        # An instance that answers nothing for longer than any call may take hangs for good.
        patience = math.ceil(spec.timeout / LIVE_PERIOD) + 3
        container["livenessProbe"] = {
            "httpGet": {"path": names.LIVE_PATH, "port": names.PORT},
            "periodSeconds": LIVE_PERIOD, "timeoutSeconds": 10, "failureThreshold": patience,
        }  # fmt: skip
    if spec.env_from:
        container["envFrom"] = list(spec.env_from)
    resources = {name: value for name, value in spec.resources.model_dump().items() if value}
    if resources:
        container["resources"] = resources
    if mounts:
        container["volumeMounts"] = mounts
    if spec.runtime == "image":
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": PRE_STOP}}}
    return container


def process_tolerations() -> list[Document]:
    """Of Pods that run on process nodes too, and leave a node soon that is lost."""
    lost = [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": NODE_LOSS,
        }
        for key in ("not-ready", "unreachable")
    ]
    return [{"key": names.PROCESS_TAINT, "operator": "Exists", "effect": "NoSchedule"}, *lost]


def pod_template(function: Function, versions: Mapping[str, str] | None = None) -> Document:
    """The template without what names the revision: two Functions of equal templates need no new revision. `versions` are the current ones
    of the namespace's Secrets that have versions: name -> name of the version."""
    volumes, mounts = _volumes(function)
    spec: Document = {
        "containers": [_container(function, mounts)],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(function.spec.timeout + DRAIN),
        "tolerations": process_tolerations(),
    }
    if volumes:
        spec["volumes"] = volumes
    if versions:
        spec = pinned(spec, versions)
    return {"metadata": {"labels": {names.LABEL_FUNCTION: function.name}}, "spec": spec}


def template_hash(template: Mapping[str, Any]) -> str:
    """What tells one revision from another: 16 hex digits."""
    return hashlib.sha256(_encode(template)).hexdigest()[:16]


def scale_policy(function: Function, *, limit: int | None = None, live: bool = True) -> ScalePolicy:
    """How a revision scales. `limit` is the revision's own concurrency where it isn't the newest; one that isn't `live` needs no minimum."""
    spec = function.spec
    scale = spec.scale
    return ScalePolicy(
        target=spec.target,
        metric=scale.metric,
        min=scale.min if live else 0,
        max=scale.max,
        idle=scale.idle,
        stable=scale.window,
        initial=scale.initial,
        live=live,
        limit=spec.concurrency if limit is None else limit,
        down_delay=scale.down_delay,
        up_rate=scale.up_rate,
        down_rate=scale.down_rate,
        floors=tuple(Floor(each.cron, each.min, each.time_zone, each.duration, each.until) for each in scale.schedule)
        if live
        else (),
    )


def policy_text(policy: ScalePolicy) -> str:
    return msgspec.json.encode(policy).decode()


def initial_replicas(function: Function) -> int:
    """With how many instances a new revision starts."""
    scale = function.spec.scale
    wanted = max(scale.initial, scale.min)
    return min(wanted, scale.max) if scale.max else wanted


def replica_set(function: Function, name: str, template: Mapping[str, Any], uid: str, *, gateway: str = "") -> Document:
    """The ReplicaSet of a new revision `name`; `template` is `pod_template`'s, `gateway` where its Pods find other functions."""
    labels = {names.LABEL_FUNCTION: function.name, names.LABEL_REVISION: name}
    container = template["spec"]["containers"][0]
    # Beyond the hash: neither a revision's own name nor where the gateway listens makes a new one.
    more = {"FAASLITE_REVISION": name, **({"FAASLITE_GATEWAY": gateway} if gateway else {})}
    environment = [{"name": key, "value": value} for key, value in more.items()]
    container = {**container, "env": [*container["env"], *environment]}
    return {
        "apiVersion": REPLICA_SET.api_version,
        "kind": REPLICA_SET.kind,
        "metadata": {
            "name": name,
            "namespace": function.namespace,
            "labels": labels,
            "annotations": {
                names.ANNOTATION_REVISION_HASH: template_hash(template),
                names.ANNOTATION_SCALE: policy_text(scale_policy(function)),
            },
            "ownerReferences": [owner(function.name, uid)],
        },
        "spec": {
            "replicas": initial_replicas(function),
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {**template["spec"], "containers": [container]},
            },
        },
    }


def service(function: Function, uid: str) -> Document:
    """For callers inside the cluster: any ready instance, whatever its revision."""
    labels = {names.LABEL_FUNCTION: function.name}
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": {
            "name": function.name,
            "namespace": function.namespace,
            "labels": labels,
            "ownerReferences": [owner(function.name, uid)],
        },
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": 80, "targetPort": names.PORT, "protocol": "TCP"}],
        },
    }


def limits_of(template: Mapping[str, Any]) -> tuple[int, float]:
    """Concurrency and timeout (seconds) that a revision was made with, read back from its ReplicaSet's template."""
    containers = (template.get("spec") or {}).get("containers") or [{}]
    values = {each.get("name"): each.get("value") for each in containers[0].get("env") or ()}
    return int(values.get("FAASLITE_CONCURRENCY") or 0), float(values.get("FAASLITE_TIMEOUT") or 30.0)
