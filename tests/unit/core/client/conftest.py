"""An API in memory, as a transport and served over HTTP, for the tests of the client."""

from __future__ import annotations

import asyncio
import copy
import datetime
import ipaddress
import ssl
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.api.kinds import BUILT_IN
from core.api.selectors import parse_fields, parse_labels
from core.client.transport import JSON, MERGE_PATCH, RawEvent
from core.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
    UnsupportedMediaType,
)

Document = dict[str, Any]


class MemoryApi:
    """A transport with the semantics of the API: revisions, selectors, pages, watches that replay, 409 and 410.

    Tests reach into it by `end_watches`, `break_watches`, `compact`, `failures` (errors that the next requests get) and
    `calls` (method and path of every request).
    """

    def __init__(self) -> None:
        self.revision = 10
        self.floor = 0
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.log: list[tuple[int, tuple[str, str, str], Document | None, Document | None]] = []
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.failures: list[ApiError] = []
        self.watching: dict[asyncio.Queue[Any], str] = {}
        self.watch_began, self.watch_ended = asyncio.Event(), asyncio.Event()
        self.closed = False

    # What tests do to it

    def put(self, kind, document: Document, namespace: str = "default") -> Document:
        """Create or replace, at once."""
        document = copy.deepcopy(document)
        metadata = document["metadata"]
        if kind.namespaced:
            metadata["namespace"] = namespace
        key = (kind.prefix + "/" + kind.plural, metadata.get("namespace", ""), metadata["name"])
        return self._store(key, document)

    def remove(self, kind, name: str, namespace: str = "default") -> None:
        self._delete((kind.prefix + "/" + kind.plural, namespace if kind.namespaced else "", name))

    def compact(self) -> None:
        self.floor = self.revision

    def end_watches(self) -> None:
        for queue in self.watching:
            queue.put_nowait(None)

    def break_watches(self) -> None:
        for queue in self.watching:
            queue.put_nowait(ServiceUnavailable("the connection broke"))

    # The transport

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        query = dict(query or {})
        self.calls.append((method, path, query))
        if self.failures:
            raise self.failures.pop(0)
        collection, namespace, name, subresource = split(path)
        document = msgspec.json.decode(body) if body else None
        if method == "GET" and not name:
            return msgspec.json.encode(self._list(collection, namespace, query))
        if method == "POST":
            return msgspec.json.encode(self._create(collection, namespace, document, name, subresource))
        key = (collection, namespace, name)
        found = self.objects.get(key)
        if found is None:
            raise NotFound(f'{collection.rpartition("/")[2]} "{name}" not found', {"name": name})
        if method == "GET":
            return msgspec.json.encode(found)
        if method == "DELETE":
            self._precondition(found, (document or {}).get("preconditions") or {})
            self._delete(key)
            return msgspec.json.encode({"kind": "Status", "status": "Success"})
        if method == "PATCH":
            if content_type != MERGE_PATCH:
                raise UnsupportedMediaType(content_type)
            self._precondition(found, document.get("metadata") or {})
            document = merged(found, document)
        elif method == "PUT":
            self._precondition(found, document["metadata"])
            document["metadata"] = {**document["metadata"], "uid": found["metadata"]["uid"]}
        else:
            raise MethodNotAllowed(method)
        return msgspec.json.encode(self._store(key, document))

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        self.calls.append(("WATCH", path, dict(query)))
        if self.failures:
            raise self.failures.pop(0)
        collection, namespace, _, _ = split(path)
        since = int(query["resourceVersion"])
        if since < self.floor:
            raise Expired(f"too old resource version: {since}")
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.watching[queue] = path
        self.watch_began.set()
        try:
            replay = [
                event for each in self.log if each[0] > since for event in matching(each, collection, namespace, query)
            ]
            if replay:
                yield replay
            while True:
                found = await queue.get()
                if found is None:
                    return
                if isinstance(found, Exception):
                    raise found
                events = [found] if isinstance(found, RawEvent) else matching(found, collection, namespace, query)
                if events:
                    yield events
        finally:
            del self.watching[queue]
            self.watch_ended.set()

    async def close(self) -> None:
        self.closed = True

    def bookmark(self) -> None:
        """Every watch gets a bookmark of the present, which no other event told."""
        self.revision += 1
        body = {"kind": "Bookmark", "metadata": {"resourceVersion": str(self.revision)}}
        for queue in self.watching:
            queue.put_nowait(RawEvent("BOOKMARK", msgspec.json.encode(body)))

    # How it does it

    def _list(self, collection: str, namespace: str, query: dict[str, str]) -> Document:
        version, after = self.revision, ("", "", "")
        if token := query.get("continue"):
            pinned, *rest = token.split("|")
            version, after = int(pinned), tuple(rest)
            if version < self.floor:
                raise Expired("the continue token is too old")
        state = dict(self.objects)
        for revision, key, old, _ in reversed(self.log):
            if revision > version:
                state.pop(key, None)
                if old is not None:
                    state[key] = old
        keys = sorted(
            key for key, each in state.items()
            if key[0] == collection and namespace in ("", key[1]) and selected(each, query) and key > after
        )  # fmt: skip
        limit = int(query.get("limit", 0)) or len(keys)
        metadata: Document = {"resourceVersion": str(version)}
        if len(keys) > limit:
            metadata["continue"] = "|".join([str(version), *keys[limit - 1]])
            metadata["remainingItemCount"] = len(keys) - limit
        return {"kind": "List", "metadata": metadata, "items": [state[key] for key in keys[:limit]]}

    def _create(self, collection: str, namespace: str, document: Document, name: str, subresource: str) -> Document:
        if subresource:
            return {"kind": "Status", "status": "Success", "of": f"{name}/{subresource}", "got": document}
        metadata = document["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        key = (collection, namespace, metadata["name"])
        if key in self.objects:
            raise AlreadyExists(f'"{metadata["name"]}" already exists')
        return self._store(key, document)

    def _store(self, key: tuple[str, str, str], document: Document) -> Document:
        old = self.objects.get(key)
        self.revision += 1
        uid = old["metadata"]["uid"] if old else str(uuid.uuid4())
        document["metadata"] = {**document["metadata"], "uid": uid, "resourceVersion": str(self.revision)}
        self.objects[key] = document
        self._tell(key, old, document)
        return document

    def _delete(self, key: tuple[str, str, str]) -> None:
        old = self.objects.pop(key)
        self.revision += 1
        self._tell(key, old, None)

    def _tell(self, key: tuple[str, str, str], old: Document | None, new: Document | None) -> None:
        change = (self.revision, key, old, new)
        self.log.append(change)
        for queue in self.watching:
            queue.put_nowait(change)

    @staticmethod
    def _precondition(found: Document, wanted: Mapping[str, str]) -> None:
        for field in ("uid", "resourceVersion"):
            if wanted.get(field) and wanted[field] != found["metadata"][field]:
                raise Conflict(f"Precondition failed: {field}")


def split(path: str) -> tuple[str, str, str, str]:
    """Collection, namespace, name, subresource of a path."""
    for kind in BUILT_IN:
        parts = path.removeprefix(kind.prefix + "/").split("/")
        if path.startswith(kind.prefix + "/"):
            namespace = parts[1] if parts[0] == "namespaces" and len(parts) > 2 else ""
            rest = parts[2:] if namespace else parts
            if rest[0] == kind.plural:
                return f"{kind.prefix}/{rest[0]}", namespace, *[*rest[1:], "", ""][:2]
    raise NotFound("the server could not find the requested resource")


def selected(document: Document | None, query: Mapping[str, str]) -> bool:
    if document is None:
        return False

    def field(path: str) -> str:
        found: Any = document
        for part in path.split("."):
            found = (found or {}).get(part)
        return str(found or "")

    labels = document["metadata"].get("labels")
    return parse_labels(query.get("labelSelector", "")).matches(labels) and parse_fields(
        query.get("fieldSelector", "")
    )(field)


def matching(change: Any, collection: str, namespace: str, query: Mapping[str, str]) -> list[RawEvent]:
    """The event that a change is to a watch with these selectors, if any."""
    revision, key, old, new = change
    if key[0] != collection or namespace not in ("", key[1]):
        return []
    was, is_ = selected(old, query), selected(new, query)
    if is_:
        return [RawEvent("MODIFIED" if was else "ADDED", msgspec.json.encode(new))]
    if was:
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(revision)}}
        return [RawEvent("DELETED", msgspec.json.encode(last))]
    return []


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


# Over HTTP


def application(api: MemoryApi, seen: dict[str, Any]) -> web.Application:
    """The API as a server speaks it. `seen` gets the last request's headers and client certificate."""

    async def handle(request: web.Request) -> web.StreamResponse:
        seen["headers"] = request.headers
        certificate = request.transport and request.transport.get_extra_info("peercert")
        seen["certificate"] = certificate
        query = dict(request.query)
        try:
            if query.pop("watch", "") == "true":
                return await watch(request, query)
            body = await api.request(request.method, request.path, query, await request.read(), request.content_type)
            return web.Response(body=body, content_type=JSON)
        except ApiError as error:
            return web.Response(body=msgspec.json.encode(error.status()), status=error.code, content_type=JSON)

    async def watch(request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": JSON})
        await reply.prepare(request)
        events = api.watch(request.path, query)
        try:
            async for batch in events:
                for event in batch:
                    await reply.write(b'{"type":"%s","object":%s}\n' % (event.type.encode(), event.object))
        except ServiceUnavailable:
            request.transport.abort()
        except ApiError as error:
            line = {"type": "ERROR", "object": error.status()}
            await reply.write(msgspec.json.encode(line) + b"\n")
        finally:
            await events.aclose()
        return reply

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


@pytest.fixture
def seen() -> dict[str, Any]:
    """What the server of `app` saw of the last request: `headers`, `certificate`."""
    return {}


Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(app, ssl=None)` serves an application on 127.0.0.1 and gives its URL."""
    runners: list[web.AppRunner] = []

    async def start(app: web.Application, context: ssl.SSLContext | None = None) -> str:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        return f"{'https' if context else 'http'}://127.0.0.1:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def app(api: MemoryApi, seen: dict[str, Any]) -> web.Application:
    return application(api, seen)


# Certificates


class Authority:
    """A certificate authority that makes a server's and a client's certificate, as PEM files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        ca = self._build(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        ca = ca.add_extension(self._identifier, critical=False)
        self.ca = self._write("ca.crt", ca.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *addresses: str, dns: tuple[str, ...] = ()) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses] + [
            x509.DNSName(each) for each in dns
        ]
        builder = self._build(subject, key.public_key()).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write(f"{name}.crt", pem), self._write(f"{name}.key", private)

    def server_context(self, cert: Path, key: Path, *, clients: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.load_cert_chain(cert, key)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """A task that a test leaves behind fails it."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()]
    assert not left, left
