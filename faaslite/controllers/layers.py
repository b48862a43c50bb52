"""Decisions about layers that are built in the cluster, and the Pods that build them. Pure; `builds` compares and writes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.api.kinds import POD, SECRET
from core.api.meta import Document
from core.api.views import Pod
from core.clock import parse_time
from faaslite.api import names
from faaslite.api.function import Function
from faaslite.api.layers import Wanted, paths_in
from faaslite.api.tenancy import BUILDER_ACCOUNT
from faaslite.controllers.resources import USER, image_of, owner, process_tolerations
from faaslite.controllers.revisions import Failure, diagnose
from faaslite.controllers.status import Verdict

__all__ = ["KEPT", "MEMORY", "Decision", "build_pod", "decide", "known_layers", "pod_name", "remembered", "stale", "token_request", "token_secret", "with_layer"]  # fmt: skip

SECONDS = 960
"""That a build may take: a minute over what its installer may."""
MEMORY, DISK = "512Mi", "4Gi"
KEPT = 300.0
"""Seconds for which a Pod that built a layer stays, for its log."""
LAYERS = 8
"""That a Function's status remembers, the newest first: requirements that come back need no build."""
TOKEN = "/var/run/secrets/faaslite-build"  # noqa: S105 - a path
CONTAINER = "build"
ROOT_CA = "kube-root-ca.crt"


@dataclass(frozen=True, slots=True)
class Decision:
    """`verdict` is the condition Built; `digest` the layer's, "" while there is none; `pod` the Pod that it is about, which is to be made where
    `create`; `ended` whether that Pod has."""

    verdict: Verdict
    digest: str = ""
    pod: str = ""
    create: bool = False
    ended: bool = False


def pod_name(wanted: Wanted) -> str:
    """The same for all that ask for the same, so that there is one."""
    return f"build-{hashlib.sha256(f'{wanted.key} {wanted.asked}'.encode()).hexdigest()[:16]}"


def decide(wanted: Wanted, known: str, pods: Iterable[Pod]) -> Decision:
    """`known` is the layer's digest where some Function of the namespace remembers it; `pods` are all that build this key there."""
    if known:
        return Decision(Verdict("True", "LayerReady", known), known)
    found = sorted(pods, key=lambda each: each.metadata.creation_timestamp or "", reverse=True)
    for pod in found:
        if digest := built_digest(pod):
            return Decision(Verdict("True", "LayerReady", digest), digest, pod.name, ended=True)
    for pod in found:
        if not pod.terminal and pod.metadata.deletion_timestamp is None:
            return Decision(_underway(pod), pod=pod.name)
    for pod in found:
        asked = pod.metadata.annotations.get(names.ANNOTATION_BUILD_ASKED, "")
        if pod.terminal and asked == wanted.asked and pod.metadata.deletion_timestamp is None:
            failure = _failure(pod)
            return Decision(Verdict("False", failure.reason, failure.message), pod=pod.name, ended=True)
    name = pod_name(wanted)
    return Decision(
        Verdict("Unknown", "BuildPending", f"the dependency layer is to be built by the Pod {name}"),
        pod=name,
        create=True,
    )


def _underway(pod: Pod) -> Verdict:
    if pod.status.phase == "Running":
        return Verdict("Unknown", "Building", f"the Pod {pod.name} builds the dependency layer")
    failure = diagnose([pod], None)
    if failure is not None:
        return Verdict(
            "False", failure.reason, f"the Pod {pod.name}, which is to build the dependency layer: {failure.message}"
        )
    return Verdict(
        "Unknown", "BuildPending", f"the Pod {pod.name}, which is to build the dependency layer, is starting"
    )


def _ended(pod: Pod) -> Mapping[str, Any]:
    return next((each.state.terminated for each in pod.status.container_statuses if each.state.terminated), {})


def built_digest(pod: Pod) -> str:
    """What a build Pod says that it made, "" where it made nothing."""
    if pod.status.phase != "Succeeded":
        return ""
    try:
        digest = json.loads(str(_ended(pod).get("message") or ""))["digest"]
    except (ValueError, KeyError, TypeError):
        return ""
    return digest if isinstance(digest, str) and digest.startswith("sha256:") and len(digest) == 71 else ""


def _failure(pod: Pod) -> Failure:
    ended = _ended(pod)
    if ended.get("reason") == "OOMKilled":
        return Failure(
            "OOMKilled",
            f"the build ran out of memory, of which it has {MEMORY}; build it with faas deploy --build local",
        )
    if pod.status.reason == "DeadlineExceeded":
        return Failure("BuildFailed", f"the build took longer than {SECONDS} s")
    said = " ".join(str(ended.get("message") or pod.status.message or "").split())
    if pod.status.phase == "Succeeded":
        said = "the build ended well and named no layer"
    return Failure("BuildFailed", said or f"the Pod {pod.name} failed: {pod.status.reason or ended.get('exitCode')}")


def known_layers(status: Mapping[str, Any]) -> dict[str, str]:
    """Key -> digest, of what a Function's status remembers."""
    rows = status.get("layers")
    return (
        {str(each.get("key")): str(each.get("digest")) for each in rows if isinstance(each, dict)}
        if isinstance(rows, list)
        else {}
    )


def remembered(status: Mapping[str, Any], key: str, digest: str) -> list[Document]:
    """`status.layers` with one at its head."""
    others = {other: each for other, each in known_layers(status).items() if other != key}
    rows = [(key, digest), *others.items()][:LAYERS]
    return [{"key": each, "digest": made} for each, made in rows]


def stale(
    pods: Iterable[Pod], wanted: Wanted | None, others: Iterable[Wanted], known: Container[str], now: float
) -> tuple[list[Pod], float | None]:
    """Of a Function's own build Pods those that may go, and the seconds until the next one may. `others` are what other Functions want, `known`
    the keys whose layers its status remembers.

    What failed stays for as long as its failure is the answer to somebody.
    """
    gone: list[Pod] = []
    later: float | None = None
    asked_for = {*others, *([wanted] if wanted is not None else [])}
    keys = {each.key for each in asked_for}
    for pod in pods:
        if pod.metadata.deletion_timestamp is not None:
            continue
        key = pod.metadata.labels.get(names.LABEL_BUILD, "")
        if not pod.terminal:
            if key not in keys:
                gone.append(pod)
        elif built_digest(pod):
            finished = str(_ended(pod).get("finishedAt") or "")
            left = parse_time(finished) + KEPT - now if finished else 0.0
            if left > 0:
                later = left if later is None else min(later, left)
            elif key in known or key not in keys:
                gone.append(pod)
        elif Wanted(key, pod.metadata.annotations.get(names.ANNOTATION_BUILD_ASKED, "")) not in asked_for:
            gone.append(pod)
    return gone, later


def with_layer(function: Function, digest: str) -> Function:
    """The Function as if its spec named the layer that was built for it."""
    package = function.spec.package
    assert package is not None
    spec = function.spec.model_copy(
        update={"package": package.model_copy(update={"layer": digest, "requirements": ""})}
    )
    return function.model_copy(update={"spec": spec})


def build_pod(function: Function, wanted: Wanted, uid: str, gateway: str) -> Document:
    """`gateway` is where the package store is reached."""
    package = function.spec.package
    assert package is not None
    name = pod_name(wanted)
    environment = {
        "FAASLITE_BUILD": names.BUILD_PATH, "FAASLITE_CA_FILE": f"{TOKEN}/ca.crt", "FAASLITE_NAMESPACE": function.namespace,
        "FAASLITE_REQUIREMENTS": package.requirements,
        "FAASLITE_RUNTIME": function.spec.runtime, "FAASLITE_STORE": gateway, "FAASLITE_TOKEN_FILE": f"{TOKEN}/token",
    }  # fmt: skip
    sources = [{"secret": {"name": name}}, {"configMap": {"name": ROOT_CA, "optional": True}}]
    volumes: list[Document] = [
        {"name": "work", "emptyDir": {"sizeLimit": DISK}},
        {"name": "token", "projected": {"sources": sources}},
    ]
    mounts: list[Document] = [
        {"name": "work", "mountPath": names.BUILD_PATH},
        {"name": "token", "mountPath": TOKEN, "readOnly": True},
    ]
    if paths_in(package.requirements):
        environment["FAASLITE_PACKAGE"] = names.PACKAGE_PATH
        csi = {"driver": names.PACKAGE_DRIVER, "readOnly": True, "volumeAttributes": {"digest": package.digest}}
        volumes.append({"name": "package", "csi": csi})
        mounts.append({"name": "package", "mountPath": names.PACKAGE_PATH, "readOnly": True})
    container: Document = {
        "name": CONTAINER,
        "image": image_of(function),
        "imagePullPolicy": "IfNotPresent",
        "command": [names.BUILD_COMMAND],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": MEMORY}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}, "runAsNonRoot": True, "runAsUser": USER,
            "runAsGroup": USER, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }  # fmt: skip
    return {
        "apiVersion": POD.api_version,
        "kind": POD.kind,
        "metadata": {
            **_metadata(function, name, wanted, uid),
            "annotations": {names.ANNOTATION_BUILD_ASKED: wanted.asked},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": SECONDS,
            "containers": [container],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "tolerations": process_tolerations(),
            "volumes": volumes,
        },
    }


def _metadata(function: Function, name: str, wanted: Wanted, uid: str) -> Document:
    labels = {names.LABEL_BUILD: wanted.key, names.LABEL_BUILD_OF: function.name}
    return {
        "name": name,
        "namespace": function.namespace,
        "labels": labels,
        "ownerReferences": [owner(function.name, uid)],
    }


def token_secret(function: Function, wanted: Wanted, uid: str) -> Document:
    """What the build's token goes into, once it is made for it: with the Secret the token ends."""
    metadata = _metadata(function, pod_name(wanted), wanted, uid)
    return {"apiVersion": SECRET.api_version, "kind": SECRET.kind, "metadata": metadata}


def token_request(secret: Mapping[str, Any]) -> Document:
    metadata = secret["metadata"]
    bound = {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}
    spec = {"expirationSeconds": math.ceil(SECONDS * 1.5), "boundObjectRef": bound}
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
        "metadata": {"name": BUILDER_ACCOUNT},
    }
