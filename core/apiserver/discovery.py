"""Discovery documents, made from the table of kinds: the legacy lists and the aggregated form. Pure.

Sources: `metav1.APIGroupList`, `metav1.APIResourceList` and `apidiscovery.k8s.io` (KEP-3352).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.api.kinds import Kind

__all__ = [
    "aggregated", "aggregated_media_type", "api_versions", "group", "group_list", "resource_list", "storage_version_hash", "subresource_kind",
    "subresource_verbs",
]  # fmt: skip

_GET_WRITE = ("get", "patch", "update")
_STREAM = ("create", "get")


@dataclass(frozen=True, slots=True)
class Subresource:
    """What is served below an object: its verbs, and its kind where it isn't the object's own."""

    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""
    kind: str = ""


_DEFAULT = Subresource(_GET_WRITE)
_SUBRESOURCES = {
    "attach": Subresource(_STREAM, "", "v1", "PodAttachOptions"),
    "binding": Subresource(("create",), "", "v1", "Binding"),
    "ephemeralcontainers": Subresource(_GET_WRITE),
    "eviction": Subresource(("create",), "policy", "v1", "Eviction"),
    "exec": Subresource(_STREAM, "", "v1", "PodExecOptions"),
    "finalize": Subresource(("update",)),
    "log": Subresource(("get",)),
    "portforward": Subresource(_STREAM, "", "v1", "PodPortForwardOptions"),
    "proxy": Subresource(("create", "delete", "get", "patch", "update")),
    "resize": Subresource(_GET_WRITE),
    "scale": Subresource(_GET_WRITE, "autoscaling", "v1", "Scale"),
    "status": Subresource(_GET_WRITE),
    "token": Subresource(("create",), "authentication.k8s.io", "v1", "TokenRequest"),
    "approval": Subresource(_GET_WRITE),
}
_PROXY_OPTIONS = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions", "nodes": "NodeProxyOptions"}


def _subresource(kind: Kind, name: str) -> Subresource:
    found = _SUBRESOURCES.get(name, _DEFAULT)
    if name == "proxy" and not kind.group and kind.plural in _PROXY_OPTIONS:
        return Subresource(found.verbs, "", "v1", _PROXY_OPTIONS[kind.plural])
    return found


def subresource_verbs(kind: Kind, name: str) -> tuple[str, ...]:
    """The verbs that a subresource of `kind` takes."""
    return _subresource(kind, name).verbs


def subresource_kind(kind: Kind, name: str) -> tuple[str, str, str]:
    """(group, version, kind) of what a subresource of `kind` reads and answers."""
    found = _subresource(kind, name)
    if found.kind:
        return found.group, found.version, found.kind
    return kind.group, kind.version, kind.kind


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def _version_rank(version: str) -> tuple[Any, ...]:
    """Sorts as Kubernetes prefers: v2, v1, v1beta2, v1beta1, v1alpha1, then other names by the alphabet."""
    matched = _VERSION.fullmatch(version)
    if matched is None:
        return (1, version)
    stability = {None: 0, "beta": 1, "alpha": 2}[matched[2]]
    return (0, stability, -int(matched[1]), -int(matched[3] or 0))


def _by_group(kinds: Iterable[Kind]) -> dict[str, dict[str, list[Kind]]]:
    """Group -> version (the preferred one first) -> kinds, in the order of the table."""
    found: dict[str, dict[str, list[Kind]]] = {}
    for each in kinds:
        found.setdefault(each.group, {}).setdefault(each.version, []).append(each)
    return {
        name: dict(sorted(versions.items(), key=lambda item: _version_rank(item[0])))
        for name, versions in found.items()
    }


# The legacy form


def api_versions() -> dict[str, Any]:
    """The answer to `GET /api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }


def _group(name: str, versions: Iterable[str]) -> dict[str, Any]:
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


def group_list(kinds: Sequence[Kind]) -> dict[str, Any]:
    """The answer to `GET /apis`."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, versions) for name, versions in _by_group(kinds).items() if name],
    }


def group(kinds: Sequence[Kind], group: str) -> dict[str, Any] | None:
    """The answer to `GET /apis/GROUP`, None where no kind is in it."""
    versions = _by_group(each for each in kinds if each.group == group).get(group)
    if not group or versions is None:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}


def storage_version_hash(kind: Kind, stored_as: str) -> str:
    """Says when objects begin to be stored in another version (KEP-2339). `stored_as` is `v1` or `apps/v1`."""
    named = f"{stored_as}/{kind.kind}" if "/" in stored_as else f"/{stored_as}/{kind.kind}"
    return base64.b64encode(hashlib.sha256(named.encode()).digest()[:8]).decode()


def resource_list(
    kinds: Sequence[Kind], group: str, version: str, stored_as: Mapping[Kind, str] | None = None
) -> dict[str, Any] | None:
    """The answer to `GET /api/v1` and `GET /apis/GROUP/VERSION`, None where no kind is in it.

    `stored_as` has the versions of kinds that are not stored in their own.
    """
    found: list[dict[str, Any]] = []
    for each in kinds:
        if (each.group, each.version) != (group, version):
            continue
        entry: dict[str, Any] = {
            "name": each.plural,
            "singularName": each.singular,
            "namespaced": each.namespaced,
            "kind": each.kind,
            "verbs": list(each.verbs),
        }
        if each.short_names:
            entry["shortNames"] = list(each.short_names)
        if each.categories:
            entry["categories"] = list(each.categories)
        if "create" in each.verbs and "list" in each.verbs:  # what is only asked or answered isn't stored
            entry["storageVersionHash"] = storage_version_hash(each, (stored_as or {}).get(each, each.api_version))
        found.append(entry)
        found += [_legacy_subresource(each, name) for name in each.subresources]
    if not found:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": sorted(found, key=lambda entry: str(entry["name"])),
    }


def _legacy_subresource(kind: Kind, name: str) -> dict[str, Any]:
    own = _subresource(kind, name)
    found: dict[str, Any] = {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": own.kind or kind.kind,
        "verbs": list(own.verbs),
    }
    if own.kind and (own.group, own.version) != (kind.group, kind.version):
        found["group"] = own.group
        found["version"] = own.version
    return found


# The aggregated form


def aggregated_media_type(version: str = "v2") -> str:
    """The exact Content-Type that clients expect of an aggregated answer."""
    return f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def aggregated(kinds: Sequence[Kind], core: bool, version: str = "v2") -> dict[str, Any]:
    """The answer to `GET /api` (`core`) or `GET /apis` in the form `aggregated_media_type(version)`."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
                "versions": [
                    {
                        "version": each,
                        "resources": [
                            _aggregated_resource(kind) for kind in sorted(found, key=lambda kind: kind.plural)
                        ],
                        "freshness": "Current",
                    }
                    for each, found in versions.items()
                ],
            }
            for name, versions in _by_group(kinds).items()
            if core == (not name)
        ],
    }


def _response_kind(group: str, version: str, kind: str) -> dict[str, str]:
    return {"group": group, "version": version, "kind": kind}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _response_kind(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    if kind.subresources:
        found["subresources"] = [
            {
                "subresource": name,
                "responseKind": _response_kind(*subresource_kind(kind, name)),
                "verbs": list(subresource_verbs(kind, name)),
            }
            for name in sorted(kind.subresources)
        ]
    return found
