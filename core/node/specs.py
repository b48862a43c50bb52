"""What the runtime is asked for, from a Pod's specification. Pure, but for the host paths of mounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.api import quantity, views
from core.node.env import ConfigError, expand
from core.node.runtime.base import ContainerSpec, Mount, SandboxSpec
from core.node.volumes.base import Prepared
from core.node.volumes.manager import host_path

__all__ = ["Dns", "container_spec", "log_folder", "sandbox_spec"]


@dataclass(frozen=True, slots=True)
class Dns:
    """Where Pods with the policy `ClusterFirst` ask for names; no servers: they ask where the node does."""

    servers: Sequence[str] = ()
    domain: str = "cluster.local"


def log_folder(root: Path, pod: views.Pod) -> Path:
    """`ROOT/NAMESPACE_NAME_UID`."""
    return root / f"{pod.namespace}_{pod.name}_{pod.metadata.uid}"


def _cores(values: Mapping[str, str | int | float]) -> float:
    return quantity.milli(values["cpu"]) / 1000 if "cpu" in values else 0.0


def _bytes(values: Mapping[str, str | int | float]) -> int:
    return quantity.whole(values["memory"]) if "memory" in values else 0


def sandbox_spec(pod: views.Pod, log_dir: Path, address: str, dns: Dns) -> SandboxSpec:
    """The Pod's shared part; its limits are the sums over its containers, none where one of them has none."""
    spec = pod.spec
    cpus = [_cores(each.resources.limits) for each in spec.containers]
    memories = [_bytes(each.resources.limits) for each in spec.containers]
    searches: tuple[str, ...] = ()
    if dns.servers and spec.dns_policy == "ClusterFirst":
        searches = (f"{pod.namespace}.svc.{dns.domain}", f"svc.{dns.domain}", dns.domain)
    return SandboxSpec(
        uid=pod.metadata.uid,
        name=pod.name,
        namespace=pod.namespace,
        log_dir=str(log_dir),
        address=address,
        hostname=spec.hostname or pod.name[:63].rstrip("-."),
        labels=pod.metadata.labels,
        annotations=pod.metadata.annotations,
        dns_servers=tuple(dns.servers) if searches else (),
        dns_searches=searches,
        cpu=sum(cpus) if all(cpus) else 0.0,
        memory=sum(memories) if all(memories) else 0,
        solitary=len(spec.containers) == 1 and not any(each.restart_policy for each in spec.init_containers),
    )


def container_spec(
    container: views.Container,
    pod: views.Pod,
    env: Mapping[str, str],
    volumes: Mapping[str, Prepared],
    attempt: int,
) -> ContainerSpec:
    """One container, resolved. Raises `ConfigError`, `VolumeError`."""
    security = {**pod.spec.security_context, **container.security_context}
    user = security.get("runAsUser")
    if security.get("privileged"):
        raise ConfigError(f"container {container.name}: this node runs no privileged containers")
    if security.get("runAsNonRoot") and user == 0:
        raise ConfigError(f"container {container.name}: runAsUser is 0, but runAsNonRoot is set")
    resources = container.resources
    return ContainerSpec(
        name=container.name,
        image=container.image,
        command=tuple(expand(each, env) for each in container.command),
        args=tuple(expand(each, env) for each in container.args),
        env=env,
        working_dir=container.working_dir,
        mounts=tuple(_mount(each, volumes) for each in container.volume_mounts),
        ports=tuple(each.container_port for each in container.ports if each.protocol == "TCP"),
        cpu=_cores(resources.limits),
        cpu_request=_cores(resources.requests),
        memory=_bytes(resources.limits),
        user=None if user is None else int(user),
        group=None if security.get("runAsGroup") is None else int(security["runAsGroup"]),
        read_only_root=bool(security.get("readOnlyRootFilesystem")),
        no_capabilities=_no_capabilities(security.get("capabilities") or {}),
        attempt=attempt,
        termination_message_path=container.termination_message_path or "/dev/termination-log",
        tty=container.tty,
        stdin=container.stdin,
        stdin_once=container.stdin and container.stdin_once,
        added=any(each.name == container.name for each in pod.spec.ephemeral_containers),
        target=container.target_container_name,
    )


def _no_capabilities(asked: Mapping[str, Sequence[str]]) -> bool:
    """The only thing that this node knows to do with capabilities is to take all of them."""
    return "ALL" in (asked.get("drop") or ()) and not asked.get("add")


def _mount(mount: views.VolumeMount, volumes: Mapping[str, Prepared]) -> Mount:
    prepared = volumes.get(mount.name)
    if prepared is None:
        raise ConfigError(f"there is no volume {mount.name!r} in this Pod")
    if prepared.scratch:
        return Mount("", mount.mount_path, mount.read_only, prepared.scratch)
    return Mount(host_path(prepared, mount.sub_path), mount.mount_path, mount.read_only or prepared.read_only)
