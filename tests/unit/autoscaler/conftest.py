"""ReplicaSets in memory behind the real client and informers, and a gateway's end of the collector's socket."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from core.client.transport import JSON, RawEvent
from core.errors import ApiError, NotFound
from faaslite.api.names import ANNOTATION_SCALE, LABEL_FUNCTION
from faaslite.api.wire import Message, decode, encode

TIMEOUT = 5.0


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """Under launch it is uvloop; alone, perhaps not."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class ReplicaSetApi:
    """A Transport that knows one kind. `writes` are the (name, replicas) that came through the scale subresource.

    `refuse` is raised by the next writes; while `gate` is clear a write waits.
    """

    def __init__(self) -> None:
        self.version = 1
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, int]] = []
        self.refuse: ApiError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.written = asyncio.Event()
        self._watchers: set[asyncio.Queue[RawEvent]] = set()

    def put(self, name: str, *, replicas: int = 1, ready: int = 0, policy: dict[str, Any] | None = None) -> None:
        document = {
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {LABEL_FUNCTION: name.rpartition("-")[0]},
                "annotations": {ANNOTATION_SCALE: json.dumps(policy or {})},
            },
            "spec": {"replicas": replicas},
            "status": {"readyReplicas": ready},
        }
        self._store(document, "MODIFIED" if name in self.objects else "ADDED")

    def ready(self, name: str, ready: int) -> None:
        document = copy.deepcopy(self.objects[name])
        document["status"]["readyReplicas"] = ready
        self._store(document, "MODIFIED")

    def remove(self, name: str) -> None:
        self._tell("DELETED", self.objects.pop(name))

    def _store(self, document: dict[str, Any], event: str) -> None:
        self.objects[document["metadata"]["name"]] = document
        self._tell(event, document)

    def _tell(self, event: str, document: dict[str, Any]) -> None:
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        for watcher in self._watchers:
            watcher.put_nowait(RawEvent(event, json.dumps(document).encode()))

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        if method == "GET":
            items = list(self.objects.values())
            return json.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": items}).encode()
        name, subresource = path.split("/")[-2:]
        assert (method, subresource) == ("PATCH", "scale")
        await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        if name not in self.objects:
            raise NotFound(f'replicasets.apps "{name}" not found')
        replicas = json.loads(body)["spec"]["replicas"]
        document = copy.deepcopy(self.objects[name])
        document["spec"]["replicas"] = replicas
        self._store(document, "MODIFIED")
        self.writes.append((name, replicas))
        self.written.set()
        return b"{}"

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        queue: asyncio.Queue[RawEvent] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            while True:
                yield [await queue.get()]
        finally:
            self._watchers.discard(queue)

    async def close(self) -> None: ...


class Gateway:
    """A gateway's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *messages: Message) -> None:
        self.raw(b"".join(encode(each) for each in messages))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> Message | None:
        """None where the connection ended."""
        try:
            async with asyncio.timeout(TIMEOUT):
                line = await self.reader.readline()
        except ConnectionError:
            return None
        return decode(line) if line else None

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


Connect = Callable[[Path], Awaitable[Gateway]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[Gateway] = []

    async def connecting(path: Path) -> Gateway:
        gateway = Gateway(*await asyncio.open_unix_connection(str(path)))
        made.append(gateway)
        return gateway

    yield connecting
    for each in made:
        await each.close()


@pytest.fixture
def api() -> ReplicaSetApi:
    return ReplicaSetApi()
