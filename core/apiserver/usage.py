"""`metrics.k8s.io`: what nodes and Pods use now, as metrics-server tells it (https://github.com/kubernetes-sigs/metrics-server).

Nothing is stored or watched: the nodes that are meant are asked for their summaries, and sample only then. What a node doesn't
tell is left out of lists and is not found by name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp
import msgspec

from core.api import quantity
from core.api.kinds import NODE, NODE_METRICS, POD, POD_METRICS, Kind
from core.apiserver.cache import encode
from core.apiserver.forms import ListMeta, negotiate, render_list, render_object
from core.apiserver.registry.generic import Registry
from core.apiserver.registry.listing import list_options, list_page
from core.apiserver.request import ApiRequest, Reply
from core.apiserver.served import Served
from core.apiserver.status import method_not_allowed
from core.apiserver.streams.log import KubeletConnector, authority, kubelet_address
from core.clock import timestamp, wall
from core.errors import ApiError, NotFound
from core.store.base import Entry

__all__ = ["MEASURED", "Measured", "duration", "node_metrics", "pod_metrics"]

Document = dict[str, Any]
log = logging.getLogger(__name__)

MEASURED = frozenset((NODE_METRICS, POD_METRICS))
_SECONDS = 5.0


def duration(seconds: float) -> str:
    """As Go writes a Duration, to the millisecond: `1.5s`, `1m2.04s`."""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    shown = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{shown}" if minutes else shown


def _usage(measured: Document) -> dict[str, str] | None:
    """Of a node or container of a summary; None where its rate isn't known yet."""
    cpu = measured["cpu"].get("usageNanoCores")
    if cpu is None:
        return None
    memory = measured["memory"]["workingSetBytes"]
    return {
        "cpu": quantity.canonical(f"{cpu}n"),
        "memory": quantity.canonical(f"{memory // 1024}Ki" if memory % 1024 == 0 else memory),
    }


def _measured(kind: Kind, about: Document, now: float, timed: Document) -> Document:
    metadata = {key: about["metadata"][key] for key in ("name", "namespace", "labels") if key in about["metadata"]}
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {**metadata, "creationTimestamp": timestamp(now)},
        "timestamp": timed["time"],
        "window": duration(timed["windowSeconds"]),
    }


def node_metrics(node: Document, summary: Document, now: float) -> Document | None:
    """The NodeMetrics of a Node, from its summary. Pure."""
    found = _usage(summary["node"])
    if found is None:
        return None
    return {**_measured(NODE_METRICS, node, now, summary["node"]["cpu"]), "usage": found}


def pod_metrics(pod: Document, summaries: Iterable[Document], now: float) -> Document | None:
    """The PodMetrics of a Pod, None where none of the summaries knows all of its containers that run. Pure."""
    uid = pod["metadata"].get("uid")
    told = next((each for said in summaries for each in said["pods"] if each["podRef"]["uid"] == uid), None)
    if told is None:
        return None
    containers = [{"name": each["name"], "usage": _usage(each)} for each in told["containers"]]
    if not containers or any(each["usage"] is None for each in containers):
        return None
    return {**_measured(POD_METRICS, pod, now, told["cpu"]), "containers": containers}


class Measured:
    def __init__(self, served: Served, kubelet: KubeletConnector | None) -> None:
        self._served = served
        self._kubelet = kubelet

    async def answer(self, request: ApiRequest, registry: Registry) -> Reply:
        info, kind = request.info, registry.kind
        if info.verb not in kind.verbs or (info.verb == "get" and kind.namespaced and not info.namespace):
            raise method_not_allowed()
        form = negotiate(request.accept, request.query.get("includeObject", ""))
        source = self._served.of(POD if kind == POD_METRICS else NODE)
        if info.verb == "get":
            about = [source.codec.document(await source.get(info.namespace, info.name))]
        else:
            about = await self._selected(source, request)
        found = await (self._pods(about) if kind == POD_METRICS else self._nodes(about))
        entries = [Entry(f"/{kind.plural}", encode(each), 0, 0) for each in found]
        if info.verb == "list":
            return Reply(render_list(registry.codec, entries, ListMeta(-1), form))
        if not entries:
            name = f"{info.namespace}/{info.name}" if kind.namespaced else info.name
            resource = kind.kind.lower()
            details = {"name": name, "group": kind.group, "kind": resource}
            raise NotFound(f'{resource}.{kind.group} "{name}" not found', details)
        return Reply(render_object(registry.codec, entries[0], form))

    async def _selected(self, source: Registry, request: ApiRequest) -> list[Document]:
        query = request.query
        selection = source.selection(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        entries, _ = await list_page(source, request.info.namespace, selection, list_options({}, ""))
        return [source.cache.document(each) for each in entries]

    async def _nodes(self, nodes: Sequence[Document]) -> list[Document]:
        told = await asyncio.gather(*map(self._summary, nodes))
        now = wall()
        found = (node_metrics(node, said, now) for node, said in zip(nodes, told, strict=True) if said is not None)
        return [each for each in found if each is not None]

    async def _pods(self, pods: Sequence[Document]) -> list[Document]:
        names = {pod["spec"].get("nodeName") for pod in pods}
        registry, nodes = self._served.of(NODE), []
        for name in sorted(each for each in names if each):
            try:
                nodes.append(registry.cache.document(await registry.get("", name)))
            except NotFound:
                continue
        told = [each for each in await asyncio.gather(*map(self._summary, nodes)) if each is not None]
        now = wall()
        return [each for pod in pods if (each := pod_metrics(pod, told, now)) is not None]

    async def _summary(self, node: Document) -> Document | None:
        """What a node says, None where it says nothing: it is down, or too slow."""
        if self._kubelet is None:
            return None
        try:
            async with asyncio.timeout(_SECONDS):
                reply = await self._kubelet.get(
                    node["metadata"]["name"], f"https://{authority(kubelet_address(node))}/stats/summary", {}
                )
                async with reply:
                    if reply.status == 200:
                        found: Document = msgspec.json.decode(await reply.read())
                        return found
        except (ApiError, aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            log.info("node %s tells nothing of its usage: %s", node["metadata"]["name"], error)
        return None
