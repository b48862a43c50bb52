"""Environment of a container: env, envFrom, valueFrom, $(VAR) expansion and the variables of Services. Pure.

Order and rules are those of the kubelet: Services first, then `envFrom`, then `env`; later wins; `$(NAME)` in `env` values
refers to variables said before it, `$$` is a dollar sign.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from core.api import quantity, views
from core.errors import FaasliteError

__all__ = ["ConfigError", "Objects", "environment", "expand", "pod_field", "service_environment", "wants_address"]

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_BAD_NAME = re.compile(r"[^-._a-zA-Z0-9]")
_FIELD_KEY = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


class ConfigError(FaasliteError):
    """What a container's environment refers to isn't there (the waiting reason `CreateContainerConfigError`)."""


class Objects(Protocol):
    """Secrets and ConfigMaps as the node knows them; None where there is none of that name."""

    def secret(self, namespace: str, name: str) -> views.Secret | None: ...

    def config_map(self, namespace: str, name: str) -> views.ConfigMap | None: ...


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` by its value where there is one; `$$` becomes `$`."""
    if "$" not in text:
        return text
    return _REFERENCE.sub(lambda m: "$" if m[1] == "$" else values.get(m[2], m[0]), text)


def decoded(value: str, where: str) -> bytes:
    """The bytes of a base64 value; ConfigError says where it is broken."""
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError):
        raise ConfigError(f"{where} isn't valid base64") from None


def _text(value: bytes, where: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{where} isn't UTF-8 and can't be an environment variable") from None


def pod_field(pod: views.Pod, path: str, address: str, host_ip: str) -> str:
    """The value that the downward API gives for a field path; ConfigError for a path that it doesn't know."""
    meta = pod.metadata
    if keyed := _FIELD_KEY.fullmatch(path):
        return (meta.labels if keyed[1] == "labels" else meta.annotations).get(keyed[2], "")
    simple = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
    }
    if path in simple:
        return simple[path]
    if path in ("metadata.labels", "metadata.annotations"):
        found = meta.labels if path == "metadata.labels" else meta.annotations
        return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(found.items()))
    raise ConfigError(f"the downward API has no field {path!r}")


def wants_address(pod: views.Pod) -> bool:
    """Whether a variable is the Pod's address, so that the environment can't be told before there is one."""
    return any(
        str(((each.value_from or {}).get("fieldRef") or {}).get("fieldPath", "")).startswith("status.podIP")
        for container in pod.spec.containers
        for each in container.env
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_field(container: views.Container, resource: str, divisor: str | int, fallback: Mapping[str, str]) -> str:
    """`resourceFieldRef`: a limit or request in units of `divisor`, rounded up; the node's allocatable where no limit is set."""
    kind, _, name = resource.partition(".")
    values = container.resources.limits if kind == "limits" else container.resources.requests
    value = values.get(name, fallback.get(name, "0") if kind == "limits" else "0")
    unit = quantity.milli(divisor or "1") or 1000
    return str(-(-quantity.milli(value) // unit))


def environment(
    container: views.Container,
    pod: views.Pod,
    objects: Objects,
    *,
    address: str,
    host_ip: str,
    services: Mapping[str, str],
    allocatable: Mapping[str, str],
) -> dict[str, str]:
    """Every variable of the container. Raises `ConfigError`."""
    found: dict[str, str] = dict(services)
    for source in container.env_from:
        found.update(_env_from(source, pod.namespace, objects))
    for each in container.env:
        if each.value_from is None:
            found[each.name] = expand(each.value, found)
            continue
        value = _value_from(each.value_from, container, pod, objects, address, host_ip, allocatable)
        if value is not None:
            found[each.name] = value
    return found


def _env_from(source: dict[str, object], namespace: str, objects: Objects) -> dict[str, str]:
    prefix = str(source.get("prefix") or "")
    for kind in ("configMapRef", "secretRef"):
        reference = source.get(kind)
        if isinstance(reference, dict):
            data = _data(kind.removesuffix("Ref"), namespace, reference, objects) or {}
            where = f"{kind.removesuffix('Ref')} {reference.get('name')}"
            return {
                prefix + key: _text(value, f"{where}, key {key}")
                for key, value in data.items()
                if not _BAD_NAME.search(prefix + key)
            }
    return {}


def _data(kind: str, namespace: str, reference: Mapping[str, object], objects: Objects) -> dict[str, bytes] | None:
    """The content of a Secret or ConfigMap; None where it is absent and optional."""
    name = str(reference.get("name") or "")
    found: dict[str, bytes] | None = None
    if kind == "secret":
        secret = objects.secret(namespace, name)
        if secret is not None:
            found = {key: decoded(value, f"secret {name}, key {key},") for key, value in secret.data.items()}
    else:
        config_map = objects.config_map(namespace, name)
        if config_map is not None:
            found = {key: value.encode() for key, value in config_map.data.items()}
    if found is None and not reference.get("optional"):
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    return found


def _value_from(
    source: Mapping[str, object],
    container: views.Container,
    pod: views.Pod,
    objects: Objects,
    address: str,
    host_ip: str,
    allocatable: Mapping[str, str],
) -> str | None:
    for kind in ("configMapKeyRef", "secretKeyRef"):
        reference = source.get(kind)
        if isinstance(reference, dict):
            short = kind.removesuffix("KeyRef")
            key = str(reference.get("key") or "")
            data = _data(short, pod.namespace, reference, objects)
            if data is None or key not in data:
                if reference.get("optional"):
                    return None
                raise ConfigError(f"couldn't find key {key} in {short} {pod.namespace}/{reference.get('name')}")
            return _text(data[key], f"{short} {reference.get('name')}, key {key},")
    reference = source.get("fieldRef")
    if isinstance(reference, dict):
        return pod_field(pod, str(reference.get("fieldPath") or ""), address, host_ip)
    reference = source.get("resourceFieldRef")
    if isinstance(reference, dict):
        named = reference.get("containerName") or container.name
        owner = next((each for each in pod.spec.containers if each.name == named), container)
        return resource_field(owner, str(reference.get("resource") or ""), reference.get("divisor") or "1", allocatable)
    raise ConfigError(f"unknown source of a variable: {', '.join(source) or 'nothing'}")


def service_environment(services: Iterable[views.Service], namespace: str, links: bool) -> dict[str, str]:
    """`NAME_SERVICE_HOST` and the rest, for Services of the namespace (with `links`) and for `default/kubernetes` always."""
    found: dict[str, str] = {}
    for each in services:
        master = each.namespace == "default" and each.name == "kubernetes"
        if not (master or (links and each.namespace == namespace)) or not each.spec.ports:
            continue
        address = each.spec.cluster_ip
        if address in ("", "None"):
            continue
        name = each.name.upper().replace("-", "_").replace(".", "_")
        first = each.spec.ports[0]
        found[f"{name}_SERVICE_HOST"] = address
        found[f"{name}_SERVICE_PORT"] = str(first.port)
        found[f"{name}_PORT"] = f"{first.protocol.lower()}://{address}:{first.port}"
        for port in each.spec.ports:
            if port.name:
                found[f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
            stem = f"{name}_PORT_{port.port}_{port.protocol.upper()}"
            found[stem] = f"{port.protocol.lower()}://{address}:{port.port}"
            found[f"{stem}_PROTO"] = port.protocol.lower()
            found[f"{stem}_PORT"] = str(port.port)
            found[f"{stem}_ADDR"] = address
    return found
