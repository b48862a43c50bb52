"""Which objects a node has to do with: those that the Pods bound to it refer to.

Pure, and kept by events: a Pod's references are counted once when it is bound and given back when it is gone, so that a question
is a look into a table. After Kubernetes' node authorizer (https://kubernetes.io/docs/reference/access-authn-authz/node/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

__all__ = ["Graph", "Volume", "pod_references", "read_pod", "read_volume"]

Reference = tuple[str, str, str]
"""(plural, namespace, name)."""

_SECRETS, _CONFIG_MAPS, _CLAIMS = "secrets", "configmaps", "persistentvolumeclaims"
_ACCOUNTS, _VOLUMES = "serviceaccounts", "persistentvolumes"


class _Struct(msgspec.Struct, rename="camel"):
    pass


class _Named(_Struct):
    name: str | None = None


class _EnvFrom(_Struct):
    secret_ref: _Named | None = None
    config_map_ref: _Named | None = None


class _ValueFrom(_Struct):
    secret_key_ref: _Named | None = None
    config_map_key_ref: _Named | None = None


class _Env(_Struct):
    value_from: _ValueFrom | None = None


class _Container(_Struct):
    env: list[_Env] | None = None
    env_from: list[_EnvFrom] | None = None


class _PodSpec(_Struct):
    node_name: str = ""
    service_account_name: str = ""
    image_pull_secrets: list[_Named] | None = None
    volumes: list[dict[str, Any]] | None = None
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    ephemeral_containers: list[_Container] | None = None


class _Metadata(_Struct):
    name: str = ""
    namespace: str = ""


class Pod(_Struct):
    metadata: _Metadata
    spec: _PodSpec


class _PersistentVolume(_Struct):
    metadata: _Metadata
    spec: dict[str, Any]


class Volume(NamedTuple):
    """A persistent volume: the claim (namespace, name) that has it, and the Secrets (namespace, name) that mounting it takes."""

    claim: tuple[str, str]
    secrets: frozenset[tuple[str, str]]


_pod = msgspec.json.Decoder(Pod)
_volume = msgspec.json.Decoder(_PersistentVolume)


def read_pod(value: bytes) -> Pod:
    return _pod.decode(value)


def read_volume(value: bytes) -> Volume:
    spec = _volume.decode(value).spec
    claim = spec.get("claimRef") or {}
    where = (str(claim.get("namespace") or ""), str(claim.get("name") or ""))
    found = set()
    for source in spec.values():
        for field, reference in source.items() if isinstance(source, dict) else ():
            if isinstance(reference, dict) and (field == "secretRef" or field.endswith("SecretRef")):
                # Only what a node needs: the controllers' own secrets of a CSI driver aren't for it.
                if not field.startswith("controller"):
                    found.add((str(reference.get("namespace") or where[0]), str(reference.get("name") or "")))
            elif field == "secretName" and isinstance(reference, str):
                found.add((str(source.get("secretNamespace") or where[0]), reference))
    return Volume(where, frozenset(found))


def pod_references(pod: Pod) -> frozenset[Reference]:
    """Everything that running the Pod takes, besides itself."""
    namespace, spec = pod.metadata.namespace, pod.spec
    named = {(plural, name) for plural, name in _names(pod) if name}
    if spec.service_account_name:
        named.add((_ACCOUNTS, spec.service_account_name))
    return frozenset((plural, namespace, name) for plural, name in named)


def _names(pod: Pod) -> Iterator[tuple[str, str | None]]:
    spec = pod.spec
    for each in spec.image_pull_secrets or ():
        yield _SECRETS, each.name
    for container in (*(spec.containers or ()), *(spec.init_containers or ()), *(spec.ephemeral_containers or ())):
        for source in container.env_from or ():
            if source.secret_ref:
                yield _SECRETS, source.secret_ref.name
            if source.config_map_ref:
                yield _CONFIG_MAPS, source.config_map_ref.name
        for variable in container.env or ():
            origin = variable.value_from
            if origin is not None and origin.secret_key_ref:
                yield _SECRETS, origin.secret_key_ref.name
            if origin is not None and origin.config_map_key_ref:
                yield _CONFIG_MAPS, origin.config_map_key_ref.name
    for volume in spec.volumes or ():
        yield from _volume_names(volume, pod.metadata.name)


def _volume_names(volume: Mapping[str, Any], pod: str) -> Iterator[tuple[str, str | None]]:
    for kind, source in volume.items():
        if not isinstance(source, dict):
            continue
        if kind == "ephemeral":
            yield _CLAIMS, f"{pod}-{volume.get('name')}"
        elif kind == "projected":
            for each in source.get("sources") or ():
                yield _SECRETS, (each.get("secret") or {}).get("name")
                yield _CONFIG_MAPS, (each.get("configMap") or {}).get("name")
        else:
            yield _SECRETS, source.get("secretName")
            yield _CLAIMS, source.get("claimName")
            if kind == "configMap":
                yield _CONFIG_MAPS, source.get("name")
            for field in ("secretRef", "nodePublishSecretRef"):
                yield _SECRETS, (source.get(field) or {}).get("name")


class Graph:
    """Nodes, and what they reach."""

    def __init__(self) -> None:
        self._pods: dict[str, tuple[str, frozenset[Reference]]] = {}
        self._reached: dict[str, Counter[Reference]] = {}
        self._volumes: dict[str, Volume] = {}
        self._volumes_by_secret: dict[tuple[str, str], set[str]] = {}
        self._attachments: dict[str, str] = {}

    def put_pod(self, key: str, node: str, references: frozenset[Reference]) -> None:
        """A Pod as it is now; `node` is "" where it isn't bound."""
        old = self._pods.get(key)
        new = (node, references)
        if old == new:
            return
        self.drop_pod(key)
        if node:
            self._pods[key] = new
            if references:
                self._reached.setdefault(node, Counter()).update(references)

    def drop_pod(self, key: str) -> None:
        node, references = self._pods.pop(key, ("", frozenset()))
        if not references:
            return
        reached = self._reached[node]
        for each in references:
            reached[each] -= 1
            if not reached[each]:
                del reached[each]
        if not reached:
            del self._reached[node]

    def put_volume(self, name: str, volume: Volume) -> None:
        if self._volumes.get(name) == volume:
            return
        self.drop_volume(name)
        self._volumes[name] = volume
        for secret in volume.secrets:
            self._volumes_by_secret.setdefault(secret, set()).add(name)

    def drop_volume(self, name: str) -> None:
        old = self._volumes.pop(name, None)
        for secret in old.secrets if old else ():
            volumes = self._volumes_by_secret[secret]
            volumes.discard(name)
            if not volumes:
                del self._volumes_by_secret[secret]

    def put_attachment(self, name: str, node: str) -> None:
        self._attachments[name] = node

    def drop_attachment(self, name: str) -> None:
        self._attachments.pop(name, None)

    def reaches(self, node: str, plural: str, namespace: str, name: str) -> bool:
        """Whether a Pod of the node takes that object, by itself or through a volume that it claims."""
        if plural == "volumeattachments":
            return self._attachments.get(name) == node
        reached = self._reached.get(node)
        if reached is None:
            return False
        if plural == _VOLUMES:
            volume = self._volumes.get(name)
            return volume is not None and (_CLAIMS, *volume.claim) in reached
        if (plural, namespace, name) in reached:
            return True
        volumes = self._volumes_by_secret.get((namespace, name), ()) if plural == _SECRETS else ()
        return any((_CLAIMS, *self._volumes[each].claim) in reached for each in volumes)
