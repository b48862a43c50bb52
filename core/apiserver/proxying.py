"""`proxy` of Pods, Services and nodes: a request of the client's, made from here to what it names, and the answer to it.

`[SCHEME:]NAME[:PORT]` says where to: a Pod's port (its first one), a Service's by name or number, a node's (its agent's, with the
server's own certificate, so that `nodes/proxy` is a right to be careful with). Who asks is not told to whoever is asked; links to the root in HTML
and in `Location` are led back through here, as Kubernetes does.
"""

from __future__ import annotations

import functools
import ipaddress
import random
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal, NamedTuple

import aiohttp
from yarl import URL

from core.api.kinds import ENDPOINT_SLICE, NODE, POD, SERVICE
from core.api.nodenames import serving_name
from core.apiserver.registry.generic import Registry
from core.apiserver.request import ApiRequest, Headers, Proxied, Upgrade
from core.apiserver.served import Served
from core.apiserver.streams.connect import Tunnel
from core.apiserver.streams.log import KubeletConnector, kubelet_address
from core.errors import BadRequest, ServiceUnavailable
from core.upgrade import Refused, ask

__all__ = ["Proxies", "inward", "moved", "pod_target", "ready_addresses", "relinked", "service_port", "split_name"]

Document = dict[str, Any]

_CONNECT_SECONDS = 10.0
_HTML_LIMIT = 4 * 1024 * 1024
_HOP_BY_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade",
))  # fmt: skip
_NOT_SENT = _HOP_BY_HOP | {b"host", b"authorization", b"content-length", b"accept-encoding"}
_SERVICE_LABEL = "kubernetes.io/service-name"


class Target(NamedTuple):
    """Where a request goes: `agent` is the node whose agent it is, to which the server shows its certificate."""

    scheme: str
    host: str
    port: str
    agent: str = ""

    @property
    def root(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" if self.port else f"{self.scheme}://{host}"


def split_name(text: str) -> tuple[str, str, str]:
    """(scheme, name, port) of `[SCHEME:]NAME[:PORT]`. Raises `BadRequest`."""
    parts = text.split(":")
    if len(parts) == 1:
        scheme, name, port = "", text, ""
    elif len(parts) == 2:
        scheme, (name, port) = "", parts
    elif len(parts) == 3:
        scheme, name, port = parts
    else:
        raise BadRequest(f'invalid request "{text}"')
    if not name or scheme not in ("", "http", "https"):
        raise BadRequest(f'invalid request "{text}"')
    return scheme or "http", name, port


# Links


_ATTRIBUTE = re.compile(
    rb"""(\s(?:action|background|cite|classid|codebase|data|formaction|href|icon|longdesc|manifest|poster|profile|src|usemap)\s*=\s*)(["'])(/[^"'>]*)\2""",
    re.IGNORECASE,
)
_TAG = re.compile(rb"<[a-zA-Z][^>]*>")


def relinked(page: bytes, prefix: str) -> bytes:
    """An HTML page whose links to paths of its own server lead through `prefix`. Links to other servers (`//host/...`) stay."""

    def attribute(found: re.Match[bytes]) -> bytes:
        path = found[3]
        if path.startswith((b"//", prefix.encode())):
            return found[0]
        return found[1] + found[2] + prefix.encode() + path + found[2]

    return _TAG.sub(lambda tag: _ATTRIBUTE.sub(attribute, tag[0]), page)


def moved(location: str, target: Target, prefix: str) -> str:
    """A `Location` header, led back through `prefix` where it is of the same server."""
    if location.startswith("/") and not location.startswith("//"):
        return prefix + location
    root = target.root
    if location == root or location.startswith(root + "/"):
        return prefix + (location.removeprefix(root) or "/")
    return location


class Proxies:
    def __init__(self, served: Served, kubelet: KubeletConnector | None) -> None:
        self._served = served
        self._kubelet = kubelet
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def open(self, registry: Registry, request: ApiRequest) -> Proxied | Tunnel:
        """The head of the answer is there when this returns; a `Tunnel` for what leaves HTTP behind. Raises `ApiError`."""
        raw = request.raw
        if raw is None:
            raise BadRequest("proxies are for requests that come over HTTP")
        target = await self._target(registry, request.info.namespace, request.info.name)
        depth = 8 if registry.kind.namespaced else 6
        segments = raw.path.split(b"/")
        prefix, rest = b"/".join(segments[:depth]).decode("latin-1"), b"/".join(segments[depth:]).decode("latin-1")
        if not rest and len(segments) <= depth and raw.method in ("GET", "HEAD"):
            # So that links of a page are relative to a folder.
            query = f"?{raw.query.decode('latin-1')}" if raw.query else ""
            return Proxied(301, [(b"location", f"{prefix}/{query}".encode("latin-1"))], _once())
        path = f"/{rest}" + (f"?{raw.query.decode('latin-1')}" if raw.query else "")
        headers = [(name, value) for name, value in raw.headers if _sent(name)]
        headers += [(b"x-forwarded-uri", f"{prefix}/{rest}".encode("latin-1")), (b"x-forwarded-proto", b"https")]
        if any(name == b"upgrade" for name, _ in raw.headers):
            return await self._tunnel(request.upgrade, path, headers, target)
        reply = await self._send(raw.method, target.root + path, headers, request.body, target)
        return await _passed(reply, target, prefix)

    async def _tunnel(self, upgrade: Upgrade | None, path: str, headers: Headers, target: Target) -> Proxied | Tunnel:
        if upgrade is None:
            raise BadRequest("this connection can't be upgraded")
        wanted = [(name, value) for name, value in upgrade.headers if name in (b"upgrade", b"connection")]
        port = int(target.port or (443 if target.scheme == "https" else 80))
        named = [
            (b"host", target.root.partition("//")[2].encode("latin-1")),
            (b"content-length", b"0"),
            *wanted,
            *headers,
        ]
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in named]
        tls = (self._trust(target) or _unchecked()) if target.scheme == "https" else None
        name = serving_name(target.agent) if target.agent else ""
        try:
            return Tunnel(
                await ask((target.host, port), upgrade.method, path, pairs, tls=tls, server_name=name), upgrade
            )
        except Refused as refused:
            found = [(b"content-type", (refused.content_type or "text/plain").encode("latin-1"))]
            return Proxied(refused.status, found, _once(refused.body))
        except (OSError, ValueError) as error:
            raise ServiceUnavailable(f"error trying to reach service: {error}") from error

    def _trust(self, target: Target) -> ssl.SSLContext | Literal[False]:
        """Pods' certificates are their own affair; a node's is of the cluster's CA."""
        return self._kubelet.ssl_context if target.agent and self._kubelet is not None else False

    async def _send(
        self, method: str, url: str, headers: Headers, body: bytes, target: Target
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(
                timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            return await self._session.request(
                method,
                URL(url, encoded=True),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
                data=body or None,
                ssl=self._trust(target),
                server_hostname=serving_name(target.agent) if target.agent else None,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ServiceUnavailable(f"error trying to reach service: {error}") from error

    # Where to

    async def _target(self, registry: Registry, namespace: str, asked: str) -> Target:
        scheme, name, port = split_name(asked)
        document = registry.codec.document(await registry.get(namespace, name))
        if registry.kind == NODE:
            return self._node(document, scheme, port)
        if registry.kind == SERVICE:
            return await self._service(document, scheme, port)
        return pod_target(document, scheme, port)

    def _node(self, node: Document, scheme: str, port: str) -> Target:
        host, number = kubelet_address(node)
        own = str(number)
        if port in ("", own):
            if self._kubelet is None:
                raise ServiceUnavailable("this API server has no way to reach nodes")
            return Target("https", host, own, agent=node["metadata"]["name"])
        if inward(host):
            raise BadRequest("address not allowed")
        return Target(scheme, host, port)

    async def _service(self, service: Document, scheme: str, port: str) -> Target:
        metadata = service["metadata"]
        name = service_port(service, port)
        registry = self._served.of(ENDPOINT_SLICE)
        selection = registry.selection(f"{_SERVICE_LABEL}={metadata['name']}", "")
        page = await registry.store.list(registry.prefix(metadata["namespace"]))
        slices = [registry.cache.document(each) for each in page.entries if selection.matches(each)]
        found = [each for one in slices for each in ready_addresses(one, name)]
        if not found:
            raise ServiceUnavailable(f'no endpoints available for service "{metadata["name"]}"')
        address, number = random.choice(found)  # noqa: S311
        if inward(address) and not await self._is_of_a_pod(address, metadata["namespace"]):
            raise BadRequest("address not allowed")
        return Target(scheme, address, str(number))

    async def _is_of_a_pod(self, address: str, namespace: str) -> bool:
        """Whether a node says that a Pod there has the address. Who may write slices must not so reach what listens on this machine."""
        registry = self._served.of(POD)
        page = await registry.store.list(registry.prefix(namespace))
        return any((registry.cache.document(each).get("status") or {}).get("podIP") == address for each in page.entries)


def inward(address: str) -> bool:
    """Whether an address is this machine's own, or nobody's: loopback, link-local and the like. Pods of process nodes have such ones."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return True
    return found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified


@functools.cache
def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def pod_target(pod: Document, scheme: str, port: str) -> Target:
    """The Pod's first declared port where none is said. Raises `BadRequest` for a Pod without an address."""
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise BadRequest("address not allowed")
    if not port:
        declared = [each for one in pod["spec"].get("containers") or () for each in one.get("ports") or ()]
        port = str(declared[0]["containerPort"]) if declared else ""
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise BadRequest(f'invalid port "{port}"')
    return Target(scheme, str(address), port)


def service_port(service: Document, port: str) -> str:
    """The name of the port meant: by its own name or its number, the unnamed one where nothing is said. Raises `ServiceUnavailable`."""
    known = {str(each["port"]): each.get("name") or "" for each in service["spec"].get("ports") or ()}
    if port in known:
        return known[port]
    if port in known.values():
        return port
    raise ServiceUnavailable(f'no service port "{port}" found for service "{service["metadata"]["name"]}"')


def ready_addresses(one: Mapping[str, Any], name: str) -> list[tuple[str, int]]:
    """The addresses of a slice that may be asked, with the number that its port of that name has."""
    numbers = [each["port"] for each in one.get("ports") or () if (each.get("name") or "") == name and each.get("port")]
    return [
        (address, number)
        for each in one.get("endpoints") or ()
        if (each.get("conditions") or {}).get("ready", True)
        for address in each.get("addresses") or ()
        for number in numbers
    ]


# What is passed on


def _sent(name: bytes) -> bool:
    return name not in _NOT_SENT and not name.startswith(b"impersonate-")


async def _passed(reply: aiohttp.ClientResponse, target: Target, prefix: str) -> Proxied:
    headers: Headers = []
    for name, value in reply.raw_headers:
        lower = name.lower()
        if lower in _HOP_BY_HOP:
            continue
        if lower == b"location":
            value = moved(value.decode("latin-1"), target, prefix).encode("latin-1")
        headers.append((lower, value))
    html = reply.content_type == "text/html" and reply.headers.get("Content-Encoding", "identity") == "identity"
    if not html or (reply.content_length or 0) > _HTML_LIMIT or target.agent:
        return Proxied(reply.status, headers, _chunks(reply))
    page = bytearray()
    async for chunk in reply.content.iter_any():
        page += chunk
        if len(page) > _HTML_LIMIT:
            return Proxied(reply.status, headers, _chunks(reply, bytes(page)))
    reply.release()
    body = relinked(bytes(page), prefix)
    headers = [(name, value) for name, value in headers if name != b"content-length"]
    return Proxied(reply.status, [*headers, (b"content-length", b"%d" % len(body))], _once(body))


async def _once(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for each in parts:
        yield each


async def _chunks(reply: aiohttp.ClientResponse, first: bytes = b"") -> AsyncGenerator[bytes, None]:
    try:
        if first:
            yield first
        async for chunk in reply.content.iter_any():
            yield chunk
    except aiohttp.ClientError as error:
        raise ConnectionResetError(str(error)) from error
    finally:
        reply.close()
