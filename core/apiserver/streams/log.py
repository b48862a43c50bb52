"""Logs of containers, streamed from the node agent that runs the Pod over the kubelet's path `/containerLogs/...`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp

from core.api.kinds import NODE
from core.api.nodenames import serving_name
from core.apiserver.registry.generic import Registry
from core.apiserver.request import ApiRequest, Reply, TextStream, boolean, number
from core.apiserver.served import Served
from core.apiserver.status import invalid, invalid_value
from core.errors import ApiError, BadRequest, NotFound, ServiceUnavailable, api_error
from core.upgrade import Refused, Upgraded, ask

__all__ = ["KubeletConnector", "PodLogs", "authority", "choose_container", "kubelet_address", "kubelet_of"]

Document = dict[str, Any]
_CONNECT_SECONDS = 10.0


class KubeletConnector:
    """Requests to node agents, with the client certificate of `ssl_context`."""

    def __init__(self, ssl_context: ssl.SSLContext) -> None:
        self._ssl = self.ssl_context = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def get(self, node: str, url: str, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The reply, its body unread. Raises `ServiceUnavailable` where the node doesn't answer, or another one does."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            return await self._session.get(url, params=query, ssl=self._ssl, server_hostname=serving_name(node))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServiceUnavailable(f'Get "{url}": {error}') from error

    async def upgrade(
        self, node: str, address: tuple[str, int], method: str, target: str, headers: Sequence[tuple[str, str]]
    ) -> Upgraded:
        """A connection for a protocol that isn't HTTP. Raises `ServiceUnavailable`, and what the node says against it."""
        try:
            return await ask(address, method, target, headers, tls=self._ssl, server_name=serving_name(node))
        except Refused as refused:
            raise _said(refused.status, refused.body) from refused
        except (OSError, ValueError) as error:
            host, port = address
            raise ServiceUnavailable(f"error dialing backend: {host}:{port}: {error}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def choose_container(pod: Document, asked: str) -> str:
    """The container meant: the only one, the annotated default, or the one asked for. Raises `BadRequest`."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    containers = [str(each["name"]) for each in spec.get("containers") or ()]
    others = [str(each["name"]) for each in spec.get("initContainers") or ()]
    ephemeral = [str(each["name"]) for each in spec.get("ephemeralContainers") or ()]
    if asked:
        if asked not in containers + others + ephemeral:
            raise BadRequest(f"container {asked} is not valid for pod {name}")
        return asked
    if len(containers) == 1:
        return containers[0]
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in containers:
        return str(default)
    more = f" or one of the init containers: [{' '.join(others)}]" if others else ""
    raise BadRequest(
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]{more}"
    )


def log_query(registry: Registry, name: str, query: Mapping[str, str]) -> dict[str, str]:
    """The options that are passed on. Raises `Invalid`, `BadRequest`."""
    found = {key: "true" for key in ("follow", "previous", "timestamps") if boolean(query, key)}
    causes = []
    for key, least in (("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)):
        value = number(query, key)
        if value is None:
            continue
        if value < least:
            causes.append(invalid_value(key, value, f"must be greater than {'or equal to ' if not least else ''}0"))
        found[key] = str(value)
    if query.get("sinceTime"):
        if "sinceSeconds" in found:
            causes.append(
                invalid_value(
                    "sinceTime", query["sinceTime"], "at most one of `sinceTime` or `sinceSeconds` may be specified"
                )
            )
        found["sinceTime"] = query["sinceTime"]
    if causes:
        raise invalid(registry.kind, name, causes)
    return found


def kubelet_address(node: Document) -> tuple[str, int]:
    """Address and port from a Node's status. Raises `ServiceUnavailable` where it says none."""
    status = node.get("status") or {}
    addresses = {each.get("type"): each.get("address") for each in status.get("addresses") or ()}
    host = addresses.get("InternalIP") or addresses.get("Hostname")
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
    if not host or not port:
        raise ServiceUnavailable(f"no preferred addresses found for node {node['metadata']['name']}")
    return str(host), int(port)


def authority(address: tuple[str, int]) -> str:
    """Address and port as URLs have them."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def kubelet_of(served: Served, node_name: str) -> tuple[str, int]:
    """Where the agent of that node listens. Raises `ServiceUnavailable`."""
    nodes = served.of(NODE)
    try:
        return kubelet_address(nodes.codec.document(await nodes.get("", node_name)))
    except NotFound as error:
        raise ServiceUnavailable(f"the node of the Pod can't be reached: {error.message}") from error


class PodLogs:
    def __init__(self, served: Served, kubelet: KubeletConnector | None) -> None:
        self._served = served
        self._kubelet = kubelet

    async def open(self, registry: Registry, request: ApiRequest) -> Reply | TextStream:
        """The stream, once the node has agreed to it. A Pod without a node has an empty log."""
        info = request.info
        pod = registry.codec.document(await registry.get(info.namespace, info.name))
        container = choose_container(pod, request.query.get("container", ""))
        query = log_query(registry, info.name, request.query)
        node_name = pod["spec"].get("nodeName")
        if not node_name:
            return Reply(b"", content_type="text/plain")
        if self._kubelet is None:
            raise ServiceUnavailable("this API server has no way to reach nodes")
        at = authority(await kubelet_of(self._served, node_name))
        where = "/".join(quote(each, safe="") for each in (info.namespace, info.name, container))
        reply = await self._kubelet.get(node_name, f"https://{at}/containerLogs/{where}", query)
        if reply.status >= 400:
            raise await _refusal(reply)
        return TextStream(_chunks(reply))


async def _refusal(reply: aiohttp.ClientResponse) -> ApiError:
    try:
        body = await reply.content.read(64 * 1024)
    finally:
        reply.release()
    return _said(reply.status, body)


def _said(status: int, body: bytes) -> ApiError:
    """What a node answers in plain text, as an error of ours."""
    text = body.decode("utf-8", "replace").strip()
    return api_error({"message": text or f"the node answered {status}"}, status)


async def _chunks(reply: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in reply.content.iter_any():
            yield chunk
    finally:
        reply.close()
