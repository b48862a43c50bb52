"""A server as the platform serves it, over TLS, and clients that write their requests by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.serving import AsgiServer
from core.store.memory import MemoryStore

USERS = {
    "flood-token": User("flood", ("testers",)),
    "quiet-token": User("quiet", ("testers",)),
    "node-token": User("system:node:n1", ("system:nodes",)),
    "admin-token": User("admin", ("system:masters",)),
}
BINDING = {
    "metadata": {"name": "testers"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"kind": "Group", "name": "testers", "apiGroup": "rbac.authorization.k8s.io"}],
}


class Site:
    """`client` trusts the server."""

    def __init__(
        self, api: ApiServer, store: MemoryStore, server: AsgiServer, port: int, client: ssl.SSLContext
    ) -> None:
        self.api = api
        self.store = store
        self.server = server
        self.port = port
        self.client = client

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.client)


@contextlib.asynccontextmanager
async def site(pki, **options) -> AsyncIterator[Site]:
    store = MemoryStore()
    api = ApiServer(store, tokens=USERS, **options)
    await api.start()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.certificate, pki.key)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = AsgiServer(api, listener, context, drain=0.5, client_of=api.client_of)
    await server.start()
    try:
        yield Site(api, store, server, listener.getsockname()[1], ssl.create_default_context(cafile=str(pki.authority)))
    finally:
        await api.stop()
        await server.stop()
        await store.close()


def request(
    token: str,
    method: str = "GET",
    path: str = "/api/v1/namespaces/default/configmaps",
    body: bytes = b"",
    *headers: str,
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *([f"Authorization: Bearer {token}"] if token else []), *headers]
    if body or method not in ("GET", "HEAD"):
        lines += [f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(first.split()[1]), headers, body
