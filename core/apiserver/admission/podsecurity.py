"""Pod Security: what a Pod may ask of its node, by the levels that its Namespace's labels name.

After https://kubernetes.io/docs/concepts/security/pod-security-standards/. `pod-security.kubernetes.io/enforce: LEVEL` refuses Pods; levels are
`privileged` (anything), `baseline` and `restricted`. `warn` and `audit` are read by clients and tools alone so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from core.api.kinds import NAMESPACE, POD
from core.errors import Forbidden
from core.store.base import Store

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["ENFORCE", "PodSecurity", "violations"]

Document = dict[str, Any]

ENFORCE = "pod-security.kubernetes.io/enforce"
_CAPABILITIES = frozenset((
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID",
    "SETPCAP", "SETUID", "SYS_CHROOT",
))  # fmt: skip
_SYSCTLS = frozenset((
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
))  # fmt: skip
_SELINUX = frozenset(("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"))
_VOLUMES = frozenset((
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
))  # fmt: skip
_SECCOMP = frozenset(("RuntimeDefault", "Localhost"))


class PodSecurity:
    verbs = ("create",)
    kinds = frozenset((POD.resource,))

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        info, document = attributes.info, attributes.document
        if document is None or info.subresource or attributes.kind.resource != POD.resource:
            return
        _check(document, await self._level(info.namespace))

    async def review(self, namespace: str) -> Callable[[Document, Document | None], None] | None:
        """For what is added to a Pod that is there already; None where the namespace lets in anything."""
        level = await self._level(namespace)
        return None if level == "privileged" else lambda new, old: _check(new, level)

    async def _level(self, namespace: str) -> str:
        entry = await self._store.get(f"/{NAMESPACE.resource}/{namespace}")
        if entry is None or b"pod-security" not in entry.value:
            return "privileged"
        labels = (msgspec.json.decode(entry.value).get("metadata") or {}).get("labels") or {}
        return labels.get(ENFORCE) or "privileged"


def _check(document: Document, level: str) -> None:
    found = list(violations(document, level))
    if found:
        metadata = document.get("metadata") or {}
        name = metadata.get("name") or metadata.get("generateName") or ""
        raise Forbidden(
            f'pods "{name}" is forbidden: violates PodSecurity "{level}:latest": {", ".join(found)}',
            {"name": name, "kind": "pods"},
        )


def violations(pod: Document, level: str) -> Iterator[str]:
    """What the level refuses, a line for each control, in its order. An unknown level is taken for `restricted`."""
    if level == "privileged":
        return
    spec = pod.get("spec") or {}
    checks: Iterable[Callable[[Document], str]] = _BASELINE if level == "baseline" else (*_BASELINE, *_RESTRICTED)
    for check in checks:
        if why := check(spec):
            yield why


def _containers(spec: Document) -> Iterator[tuple[str, Document, Document]]:
    """(name, container, its security context)."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for each in spec.get(key) or ():
            yield each.get("name") or "", each, each.get("securityContext") or {}


def _named(what: str, names: list[str], must: str) -> str:
    if not names:
        return ""
    quoted = ", ".join(f'"{each}"' for each in names)
    return f"{what} (container{'s' if len(names) > 1 else ''} {quoted} {must})"


def _host_namespaces(spec: Document) -> str:
    used = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _privileged(spec: Document) -> str:
    names = [name for name, _, context in _containers(spec) if context.get("privileged")]
    return _named("privileged", names, "must not set securityContext.privileged=true")


def _added(context: Document) -> set[str]:
    return {each.removeprefix("CAP_") for each in (context.get("capabilities") or {}).get("add") or ()}


def _capabilities(spec: Document) -> str:
    names = [name for name, _, context in _containers(spec) if _added(context) - _CAPABILITIES]
    extra = sorted({each for _, _, context in _containers(spec) for each in _added(context) - _CAPABILITIES})
    return _named(
        "non-default capabilities", names, f"must not include {', '.join(extra)} in securityContext.capabilities.add"
    )


def _host_paths(spec: Document) -> str:
    names = [each.get("name") or "" for each in spec.get("volumes") or () if each.get("hostPath") is not None]
    return f"hostPath volumes (volume{'s' if len(names) > 1 else ''} {', '.join(names)})" if names else ""


def _host_ports(spec: Document) -> str:
    used = {
        name: [each["hostPort"] for each in container.get("ports") or () if each.get("hostPort")]
        for name, container, _ in _containers(spec)
    }
    ports = sorted({str(port) for found in used.values() for port in found})
    return _named("hostPort", [name for name, found in used.items() if found], f"uses hostPort {', '.join(ports)}")


def _contexts(spec: Document) -> Iterator[Document]:
    yield spec.get("securityContext") or {}
    for _, _, context in _containers(spec):
        yield context


def _selinux(spec: Document) -> str:
    options = [each.get("seLinuxOptions") or {} for each in _contexts(spec)]
    bad = any(each.get("user") or each.get("role") or (each.get("type") or "") not in _SELINUX for each in options)
    return "seLinuxOptions (user and role must not be set, type must be a container type)" if bad else ""


def _proc_mount(spec: Document) -> str:
    names = [name for name, _, context in _containers(spec) if context.get("procMount", "Default") != "Default"]
    return _named("procMount", names, "must not set securityContext.procMount")


def _seccomp_unconfined(spec: Document) -> str:
    bad = any((each.get("seccompProfile") or {}).get("type") == "Unconfined" for each in _contexts(spec))
    return 'seccompProfile (must not set securityContext.seccompProfile.type to "Unconfined")' if bad else ""


def _app_armor(spec: Document) -> str:
    bad = any((each.get("appArmorProfile") or {}).get("type") == "Unconfined" for each in _contexts(spec))
    return 'appArmorProfile (must not set securityContext.appArmorProfile.type to "Unconfined")' if bad else ""


def _sysctls(spec: Document) -> str:
    said = (spec.get("securityContext") or {}).get("sysctls") or ()
    names = sorted(each.get("name") or "" for each in said if each.get("name") not in _SYSCTLS)
    return f"forbidden sysctls ({', '.join(names)})" if names else ""


def _host_process(spec: Document) -> str:
    bad = any((each.get("windowsOptions") or {}).get("hostProcess") for each in _contexts(spec))
    return "hostProcess (must not set securityContext.windowsOptions.hostProcess=true)" if bad else ""


def _volume_types(spec: Document) -> str:
    found = []
    for volume in spec.get("volumes") or ():
        types = [key for key in volume if key != "name" and volume[key] is not None]
        if not set(types) <= _VOLUMES:
            found.append(
                f'"{volume.get("name") or ""}" uses restricted volume type {", ".join(sorted(set(types) - _VOLUMES))}'
            )
    return f"restricted volume types (volume {'; '.join(found)})" if found else ""


def _escalation(spec: Document) -> str:
    names = [name for name, _, context in _containers(spec) if context.get("allowPrivilegeEscalation") is not False]
    return _named("allowPrivilegeEscalation != false", names, "must set securityContext.allowPrivilegeEscalation=false")


def _drop_all(spec: Document) -> str:
    names = [
        name
        for name, _, context in _containers(spec)
        if "ALL" not in ((context.get("capabilities") or {}).get("drop") or ())
        or _added(context) - {"NET_BIND_SERVICE"}
    ]
    return _named("unrestricted capabilities", names, 'must set securityContext.capabilities.drop=["ALL"]')


def _inherited(spec: Document, key: str) -> Iterator[tuple[str, Any]]:
    """A setting of each container, or the Pod's where the container says nothing."""
    pod = (spec.get("securityContext") or {}).get(key)
    for name, _, context in _containers(spec):
        own = context.get(key)
        yield name, pod if own is None else own


def _non_root(spec: Document) -> str:
    names = [name for name, value in _inherited(spec, "runAsNonRoot") if value is not True]
    return _named("runAsNonRoot != true", names, "must set securityContext.runAsNonRoot=true")


def _not_user_zero(spec: Document) -> str:
    names = [name for name, value in _inherited(spec, "runAsUser") if value == 0]
    return _named("runAsUser=0", names, "must not set runAsUser=0")


def _seccomp_set(spec: Document) -> str:
    names = [name for name, value in _inherited(spec, "seccompProfile") if (value or {}).get("type") not in _SECCOMP]
    return _named(
        "seccompProfile", names, 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    )


_BASELINE = (
    _host_process, _host_namespaces, _privileged, _capabilities, _host_paths, _host_ports, _app_armor, _selinux, _proc_mount,
    _seccomp_unconfined, _sysctls,
)  # fmt: skip
_RESTRICTED = (_volume_types, _escalation, _drop_all, _non_root, _not_user_zero, _seccomp_set)
