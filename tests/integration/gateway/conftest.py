"""A gateway worker on real sockets: a small API server in memory feeds it, scripted servers stand for instances."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from core.client.rest import Client
from core.client.transport import JSON, RawEvent
from faaslite.api.names import PORT
from faaslite.api.wire import Hello, Message, Notice, Poke, Report, decode, encode
from gateway.worker.settings import Settings
from gateway.worker.worker import Worker

TIMEOUT = 5.0


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


class MemoryApi:
    """A Transport that lists and watches objects held in memory."""

    def __init__(self) -> None:
        self.version = 1
        self.reviews: list[dict[str, Any]] = []
        """TokenReviews and SubjectAccessReviews that were asked for. The token T is that of the user T; who is called `may...` may."""
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"functions": {}, "pods": {}, "namespaces": {}}
        for each in ("serviceaccounts", "rolebindings"):
            self.objects[each] = {}
        self._watchers: dict[str, set[asyncio.Queue[RawEvent]]] = {each: set() for each in self.objects}

    @staticmethod
    def _review(review: dict[str, Any]) -> dict[str, Any]:
        spec = review["spec"]
        if review["kind"] == "TokenReview":
            known = not spec["token"].startswith("unknown")
            return {"status": {"authenticated": known, "user": {"username": spec["token"]}}}
        assert spec["resourceAttributes"]["subresource"] == "invoke"
        return {"status": {"allowed": spec["user"].startswith("may")}}

    def put(self, plural: str, document: dict[str, Any]) -> None:
        self.version += 1
        meta = document["metadata"]
        key = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
        meta["resourceVersion"] = str(self.version)
        kind = "MODIFIED" if key in self.objects[plural] else "ADDED"
        self.objects[plural][key] = document
        self._send(plural, kind, document)

    def remove(self, plural: str, key: str) -> None:
        self.version += 1
        document = self.objects[plural].pop(key)
        document["metadata"]["resourceVersion"] = str(self.version)
        self._send(plural, "DELETED", document)

    def _send(self, plural: str, kind: str, document: dict[str, Any]) -> None:
        for watcher in self._watchers[plural]:
            watcher.put_nowait(RawEvent(kind, json.dumps(document).encode()))

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        if method == "POST":
            self.reviews.append(json.loads(body))
            return json.dumps(self._review(self.reviews[-1])).encode()
        assert method == "GET", (method, path)
        items = list(self.objects[path.rpartition("/")[2]].values())
        return json.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": items}).encode()

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        watchers = self._watchers[path.rpartition("/")[2]]
        queue: asyncio.Queue[RawEvent] = asyncio.Queue()
        watchers.add(queue)
        try:
            while True:
                yield [await queue.get()]
        finally:
            watchers.discard(queue)

    async def close(self) -> None: ...


class Request:
    """What an instance got. `head` is as it came; names in `fields` are in lower case."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head, self.body = head, body
        self.line, *lines = head.decode("ascii").split("\r\n")
        self.method, self.target, _ = self.line.split(" ")
        self.fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    request = Request(head, b"")
    if request.fields.get("transfer-encoding") == "chunked":
        request.body = await read_chunks(reader)
    elif length := int(request.fields.get("content-length", "0")):
        request.body = await reader.readexactly(length)
    return request


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts)


def reply(body: bytes = b"hello", status: str = "200 OK", *fields: str) -> bytes:
    lines = "".join(f"{each}\r\n" for each in fields)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Instance:
    """A server on an address of its own, the port of functions. By default it answers 200 and keeps what it was asked."""

    def __init__(self, name: str, handler: Handler | None) -> None:
        self.name = name
        self.host = ""
        self.handler = handler or self.answer
        self.requests: list[Request] = []
        self.connections = 0
        self.lost = asyncio.Event()
        """A connection of the gateway has ended."""
        self.body = b"hello"
        self.gate = asyncio.Event()
        """Replies wait for it."""
        self.gate.set()
        self.arrived: asyncio.Queue[Request] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.requests.append(request)
            self.arrived.put_nowait(request)
            if not self.gate.is_set():
                await self._gate_or_end(reader)
            writer.write(reply(self.body if request.method != "HEAD" else b""))
            await writer.drain()

    async def _gate_or_end(self, reader: asyncio.StreamReader) -> None:
        """Until the gate opens; IncompleteReadError where the gateway gives up before."""
        gate, end = asyncio.ensure_future(self.gate.wait()), asyncio.ensure_future(reader.read(1))
        done, _ = await asyncio.wait([gate, end], return_when=asyncio.FIRST_COMPLETED)
        for each in (gate, end):
            each.cancel()
        await asyncio.wait([gate, end])
        if end in done:
            raise asyncio.IncompleteReadError(b"", 1)

    async def start(self) -> None:
        while True:
            self.host = f"127.{random.randint(64, 250)}.{random.randint(0, 250)}.{random.randint(1, 250)}"
            try:
                self._server = await asyncio.start_server(self._serve, self.host, PORT)
            except OSError:
                continue
            return

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.handler(reader, writer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.lost.set()
            writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Peer:
    """A client of the gateway that writes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, method: str = "GET") -> Reply:
        async with asyncio.timeout(TIMEOUT):
            head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4]
            found = Reply(head)
            if method == "HEAD" or found.status in (204, 304) or found.status < 200:
                return found
            if found.fields.get("transfer-encoding") == "chunked":
                found.body = await read_chunks(self.reader)
            elif "content-length" in found.fields:
                found.body = await self.reader.readexactly(int(found.fields["content-length"]))
            else:
                found.body = await self.reader.read()
            return found

    async def ask(self, target: str = "/function/hello", method: str = "GET", body: bytes = b"", *fields: str) -> Reply:
        lines = "".join(f"{each}\r\n" for each in fields)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.write(f"{method} {target} HTTP/1.1\r\nHost: test\r\n{length}{lines}\r\n".encode() + body)
        return await self.reply(method)

    async def rest(self) -> bytes:
        """All that comes until the gateway closes."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Reply:
    def __init__(self, head: bytes) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")
        self.line = line
        self.status = int(line.split(" ")[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        self.names = [each.partition(":")[0].lower() for each in lines]
        self.body = b""

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class FakeAutoscaler:
    """The other end of the Unix socket: keeps what it hears."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pokes: asyncio.Queue[Poke] = asyncio.Queue()
        self.reports: asyncio.Queue[Report] = asyncio.Queue()
        self.hello: asyncio.Queue[Hello] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                message: Message = decode(line)
                if isinstance(message, Poke):
                    self.pokes.put_nowait(message)
                elif isinstance(message, Report):
                    self.reports.put_nowait(message)
                elif isinstance(message, Hello):
                    self.hello.put_nowait(message)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    def notify(self, notice: Notice) -> None:
        for writer in self._writers:
            writer.write(encode(notice))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for writer in list(self._writers):
            writer.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)


class World:
    """Everything around one worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api = MemoryApi()
        self.instances: list[Instance] = []
        self.peers: list[Peer] = []
        self.autoscaler = FakeAutoscaler(folder / "autoscaler.sock")
        self.jobs = folder / "jobs.sock"
        self.tls: ssl.SSLContext | None = None
        self.recorder: Any = None
        self.address: tuple[str, int] = ("", 0)
        self.worker: Worker | None = None

    async def serve(self, **settings: Any) -> Worker:
        """Start the worker."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = listener.getsockname()
        settings = {"tune_collector": False, "drain_grace": 2.0, **settings}
        self.worker = Worker(
            Client(self.api), [listener], self.autoscaler.path, self.jobs, Settings(**settings), "gateway-1",
            control=self.folder / "gateway-1.sock", tls=self.tls, recorder=self.recorder,
        )  # fmt: skip
        await self.worker.start()
        return self.worker

    def function(
        self, name: str = "hello", *, limit: int = 0, timeout: float = 30.0, ready: bool = True, **extra: Any
    ) -> None:
        traffic = [{"revision": f"{name}-00001", "percent": 100, "concurrency": limit, "timeout": timeout}]
        self.api.put(
            "functions",
            {
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"http": extra.get("http", {})},
                "status": {
                    **extra.get("status", {}),
                    "traffic": extra.get("traffic", traffic) if ready else [],
                    "conditions": [{"type": "Ready", "status": str(ready), "message": extra.get("message", "")}],
                },
            },
        )

    def pod(
        self, instance: Instance, revision: str = "hello-00001", *, ready: bool = True, deleted: bool = False
    ) -> None:
        self.api.put(
            "pods",
            {
                "metadata": {
                    "name": instance.name,
                    "namespace": "default",
                    "uid": instance.name,
                    "labels": {"faaslite.dev/function": revision[:-6], "faaslite.dev/revision": revision},
                    **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}),
                },
                "status": {
                    "phase": "Running",
                    "podIP": instance.host,
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                },
            },
        )

    async def instance(
        self, handler: Handler | None = None, *, pod: bool = True, revision: str = "hello-00001"
    ) -> Instance:
        found = Instance(f"{revision}-{len(self.instances)}", handler)
        await found.start()
        self.instances.append(found)
        if pod:
            self.pod(found, revision)
        return found

    async def peer(self, limit: int = 1 << 20) -> Peer:
        found = Peer(*await asyncio.open_connection(*self.address, limit=limit))
        self.peers.append(found)
        return found

    async def ask(self, target: str = "/function/hello", method: str = "GET", body: bytes = b"", *fields: str) -> Reply:
        return await (await self.peer()).ask(target, method, body, *fields)

    async def settled(self) -> None:
        """The worker has seen every event of the API so far."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop, in which the worker runs too, until the worker's state is what is wanted."""
        async with asyncio.timeout(TIMEOUT):
            while not condition():  # noqa: ASYNC110 - the worker's inner state has no event
                await asyncio.sleep(0)

    async def close(self) -> None:
        for peer in self.peers:
            await peer.close()
        if self.worker is not None:
            await self.worker.stop()
        await self.autoscaler.stop()
        for instance in self.instances:
            await instance.stop()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    try:
        yield found
    finally:
        await found.close()
        leaked = asyncio.all_tasks() - {asyncio.current_task()}
        _, left = await asyncio.wait(leaked, timeout=1) if leaked else (set(), set())
        assert not left, f"leaked tasks: {left}"


@pytest.fixture
def make_reply() -> Callable[..., bytes]:
    return reply


@pytest.fixture
def read() -> Callable[[asyncio.StreamReader], Awaitable[Request]]:
    return read_request
