"""Versions of Secrets: what a rotation writes, who holds which version, and which may go. Pure.

A Secret `db` that has versions is a head: it holds what version N holds, and its annotation says N. Each version is an immutable Secret
`db-vN` that belongs to the head. Functions that name `db` get Pods that mount `db-vN`, so that a new version is a new revision, and a Pod
holds one version for as long as it lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.api.kinds import SECRET
from core.api.meta import Document
from faaslite.api.names import ANNOTATION_SECRET_VERSION, LABEL_VERSION_OF, LABEL_VERSIONED

__all__ = ["current_of", "head", "held", "number_of", "pinned", "secrets_in", "unneeded", "version", "version_name"]


def version_name(name: str, number: int) -> str:
    return f"{name}-v{number}"


def current_of(secret: Mapping[str, Any]) -> int:
    """Which version a Secret's head is at; 0 for a Secret without versions."""
    metadata = secret.get("metadata") or {}
    if LABEL_VERSIONED not in (metadata.get("labels") or {}):
        return 0
    text = str((metadata.get("annotations") or {}).get(ANNOTATION_SECRET_VERSION, ""))
    return int(text) if text.isascii() and text.isdigit() else 0


def number_of(secret: Mapping[str, Any]) -> int:
    """Which version of its head a Secret is; 0 for one that is none."""
    text = str((secret["metadata"].get("labels") or {}).get(ANNOTATION_SECRET_VERSION, ""))
    return int(text) if text.isascii() and text.isdigit() else 0


def version(name: str, namespace: str, number: int, data: Mapping[str, str], head_uid: str, type_: str) -> Document:
    """The immutable Secret that is version `number`. `data` is base64."""
    owner = {"apiVersion": "v1", "kind": SECRET.kind, "name": name, "uid": head_uid}
    return {
        "metadata": {
            "name": version_name(name, number),
            "namespace": namespace,
            "labels": {LABEL_VERSION_OF: name, ANNOTATION_SECRET_VERSION: str(number)},
            "ownerReferences": [owner],
        },
        "type": type_,
        "immutable": True,
        "data": dict(data),
    }


def head(stored: Mapping[str, Any], number: int, data: Mapping[str, str]) -> Document:
    """The head as it is to be: at version `number`. With the stored one's version, so that of two rotations at once one fails."""
    metadata = dict(stored["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL_VERSIONED: "true"}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION_SECRET_VERSION: str(number)}
    return {**stored, "metadata": metadata, "data": dict(data)}


def pinned(spec: Mapping[str, Any], versions: Mapping[str, str]) -> Document:
    """A Pod's spec with each Secret that has versions (`versions`: name -> the name of its current one) replaced by that version."""
    found = dict(spec)
    volumes = []
    for each in spec.get("volumes") or ():
        name = str((each.get("secret") or {}).get("secretName", ""))
        if name in versions:
            each = {**each, "secret": {**each["secret"], "secretName": versions[name]}}
        volumes.append(each)
    if volumes:
        found["volumes"] = volumes
    found["containers"] = [_container(each, versions) for each in spec.get("containers") or ()]
    return found


def _container(container: Mapping[str, Any], versions: Mapping[str, str]) -> Document:
    found = dict(container)
    env = []
    for each in container.get("env") or ():
        source = each.get("valueFrom") or {}
        reference = source.get("secretKeyRef") or {}
        if (name := str(reference.get("name", ""))) in versions:
            each = {**each, "valueFrom": {**source, "secretKeyRef": {**reference, "name": versions[name]}}}
        env.append(each)
    if env:
        found["env"] = env
    sources = []
    for each in container.get("envFrom") or ():
        reference = each.get("secretRef") or {}
        if (name := str(reference.get("name", ""))) in versions:
            each = {**each, "secretRef": {**reference, "name": versions[name]}}
        sources.append(each)
    if sources:
        found["envFrom"] = sources
    return found


def secrets_in(spec: Mapping[str, Any]) -> set[str]:
    """The names of all Secrets that a Pod's spec mounts or takes environment from."""
    found = {str((each.get("secret") or {}).get("secretName", "")) for each in spec.get("volumes") or ()}
    for each in spec.get("volumes") or ():
        sources = (each.get("projected") or {}).get("sources") or ()
        found |= {str((one.get("secret") or {}).get("name", "")) for one in sources}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for each in container.get("env") or ():
            found.add(str(((each.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name", "")))
        for each in container.get("envFrom") or ():
            found.add(str((each.get("secretRef") or {}).get("name", "")))
    return found - {""}


def held(name: str, versions: Iterable[int], pods: Iterable[Mapping[str, Any]]) -> dict[int, list[str]]:
    """Version -> the Pods that hold it; 0 are those that mount the head itself, from before there were versions. Pods that have ended
    hold nothing."""
    found: dict[int, list[str]] = {0: [], **{each: [] for each in versions}}
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        names = secrets_in(pod.get("spec") or {})
        for number, holders in found.items():
            if (version_name(name, number) if number else name) in names:
                holders.append(pod["metadata"]["name"])
    return found


def unneeded(current: int, held_by: Mapping[int, list[str]], named_by: Iterable[str], name: str) -> list[int]:
    """The versions that may go: neither the current one nor the one before it, held by no Pod, and named by no template of a revision
    that is kept (`named_by`: the Secrets that those name)."""
    named = set(named_by)
    others = sorted(each for each in held_by if 0 < each < current)
    return [each for each in others[:-1] if not held_by[each] and version_name(name, each) not in named]
