"""What the scheduler knows of the cluster: per node what is allocatable and what its Pods have requested.

The accounts are kept up to date event by event, so that a cycle copies nothing. A Pod is *assumed* on its node between the
choice and the watch event that shows the binding; `forget` takes that back where the binding failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from core.api import quantity
from core.api.views import Node, Pod, Resources, Taint

__all__ = ["NodeInfo", "Requests", "Snapshot", "requests_of"]

DEFAULT_MILLI_CPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024
"""Counted for containers that request nothing, in scores only, so that such Pods spread too (as kube-scheduler does)."""

_milli = lru_cache(maxsize=4096)(quantity.milli)
_whole = lru_cache(maxsize=4096)(quantity.whole)

HostPort = tuple[str, int]
"""Protocol and number."""


class Requests:
    """What one Pod takes of a node: `cpu` in thousandths of a core, `memory` in bytes, `other` in whole units."""

    __slots__ = ("cpu", "memory", "other", "ports", "scored_cpu", "scored_memory")

    def __init__(self) -> None:
        self.cpu = 0
        self.memory = 0
        self.scored_cpu = 0
        self.scored_memory = 0
        self.other: dict[str, int] = {}
        self.ports: tuple[HostPort, ...] = ()


def _amounts(resources: Resources) -> dict[str, int]:
    asked = resources.requests
    if resources.limits:
        asked = {**resources.limits, **asked}
    return {name: _milli(value) if name == "cpu" else _whole(value) for name, value in asked.items()}


def requests_of(pod: Pod) -> Requests:
    """The sum over containers, or the largest init container where that is more, plus overhead.

    Init containers with restartPolicy Always (sidecars) count among the containers.
    """
    found = Requests()
    total: dict[str, int] = {}
    spec = pod.spec
    ports = []
    for container in spec.containers:
        amounts = _amounts(container.resources)
        for name, amount in amounts.items():
            total[name] = total.get(name, 0) + amount
        found.scored_cpu += amounts.get("cpu", DEFAULT_MILLI_CPU)
        found.scored_memory += amounts.get("memory", DEFAULT_MEMORY)
        ports += [(each.protocol, each.host_port) for each in container.ports if each.host_port]
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.init_containers:
        amounts = _amounts(container.resources)
        if container.restart_policy == "Always":
            for name, amount in amounts.items():
                sidecars[name] = sidecars.get(name, 0) + amount
            amounts = {}
        for name in {*amounts, *sidecars}:
            peak[name] = max(peak.get(name, 0), amounts.get(name, 0) + sidecars.get(name, 0))
    for name, amount in sidecars.items():
        total[name] = total.get(name, 0) + amount
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0), amount)
    for name, value in spec.overhead.items():
        total[name] = total.get(name, 0) + (_milli(value) if name == "cpu" else _whole(value))
    found.cpu = total.pop("cpu", 0)
    found.memory = total.pop("memory", 0)
    found.scored_cpu = max(found.scored_cpu, found.cpu)
    found.scored_memory = max(found.scored_memory, found.memory)
    found.other = {name: amount for name, amount in total.items() if amount}
    found.ports = tuple(ports)
    return found


class NodeInfo:
    """A node's accounts. `node` is None where Pods name a node that isn't known (yet)."""

    __slots__ = (
        "allocatable_cpu", "allocatable_memory", "allocatable_other", "allocatable_pods", "hard_taints", "labels", "name", "node", "pods",
        "ports", "requested_cpu", "requested_memory", "requested_other", "scored_cpu", "scored_memory", "soft_taints", "unschedulable",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        self.labels: dict[str, str] = {}
        self.hard_taints: tuple[Taint, ...] = ()
        self.soft_taints: tuple[Taint, ...] = ()
        self.unschedulable = False
        self.allocatable_cpu = 0
        self.allocatable_memory = 0
        self.allocatable_pods = 0
        self.allocatable_other: dict[str, int] = {}
        self.pods: dict[str, Requests] = {}
        self.ports: dict[HostPort, int] = {}
        self.requested_cpu = 0
        self.requested_memory = 0
        self.scored_cpu = 0
        self.scored_memory = 0
        self.requested_other: dict[str, int] = {}

    def set_node(self, node: Node) -> None:
        self.node = node
        self.labels = node.metadata.labels
        self.unschedulable = node.spec.unschedulable
        self.hard_taints = tuple(each for each in node.spec.taints if each.effect in ("NoSchedule", "NoExecute"))
        self.soft_taints = tuple(each for each in node.spec.taints if each.effect == "PreferNoSchedule")
        amounts = dict(node.status.allocatable or node.status.capacity)
        self.allocatable_cpu = _milli(amounts.pop("cpu", 0))
        self.allocatable_memory = _whole(amounts.pop("memory", 0))
        self.allocatable_pods = _whole(amounts.pop("pods", 0))
        self.allocatable_other = {name: _whole(value) for name, value in amounts.items()}

    def _count(self, requests: Requests, sign: int) -> None:
        self.requested_cpu += sign * requests.cpu
        self.requested_memory += sign * requests.memory
        self.scored_cpu += sign * requests.scored_cpu
        self.scored_memory += sign * requests.scored_memory
        for name, amount in requests.other.items():
            self.requested_other[name] = self.requested_other.get(name, 0) + sign * amount
        for port in requests.ports:
            self.ports[port] = self.ports.get(port, 0) + sign
            if not self.ports[port]:
                del self.ports[port]

    def add(self, key: str, requests: Requests) -> None:
        self.pods[key] = requests
        self._count(requests, 1)

    def remove(self, key: str) -> None:
        self._count(self.pods.pop(key), -1)


class Snapshot:
    """All nodes. `nodes` is the list that cycles walk over, in the order in which nodes came."""

    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []
        self._infos: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}
        self._assumed: set[str] = set()

    def info(self, name: str) -> NodeInfo | None:
        return self._infos.get(name)

    def place(self, key: str) -> str | None:
        """The node that the Pod `namespace/name` is counted on."""
        return self._places.get(key)

    def assumed(self, key: str) -> bool:
        return key in self._assumed

    def set_node(self, node: Node) -> None:
        info = self._infos.get(node.name)
        if info is None:
            info = self._infos[node.name] = NodeInfo(node.name)
        if info.node is None:
            self.nodes.append(info)
        info.set_node(node)

    def remove_node(self, name: str) -> None:
        info = self._infos.get(name)
        if info is None or info.node is None:
            return
        info.node = None
        self.nodes.remove(info)
        if not info.pods:
            del self._infos[name]

    def set_pod(self, pod: Pod) -> None:
        """A Pod that is bound, as the API says; an assumption about it ends."""
        key = pod.key
        self._assumed.discard(key)
        if self._places.get(key) != pod.spec.node_name:
            self.remove_pod(key)
            self._put(key, pod.spec.node_name, requests_of(pod))

    def assume(self, pod: Pod, node_name: str, requests: Requests | None = None) -> None:
        """Count the Pod on the node from now on. `requests` spares their calculation."""
        key = pod.key
        self.remove_pod(key)
        self._put(key, node_name, requests or requests_of(pod))
        self._assumed.add(key)

    def forget(self, key: str) -> bool:
        """Take back an assumption that the API hasn't confirmed; whether there was one."""
        if key not in self._assumed:
            return False
        self.remove_pod(key)
        return True

    def remove_pod(self, key: str) -> bool:
        self._assumed.discard(key)
        place = self._places.pop(key, None)
        if place is None:
            return False
        info = self._infos[place]
        info.remove(key)
        if info.node is None and not info.pods:
            del self._infos[place]
        return True

    def _put(self, key: str, node_name: str, requests: Requests) -> None:
        info = self._infos.get(node_name)
        if info is None:
            info = self._infos[node_name] = NodeInfo(node_name)
        info.add(key, requests)
        self._places[key] = node_name

    def load(self, nodes: Iterable[Node], pods: Iterable[Pod]) -> None:
        """Everything at once, for a start from informer caches."""
        for node in nodes:
            self.set_node(node)
        for pod in pods:
            if pod.spec.node_name and not pod.terminal:
                self.set_pod(pod)
