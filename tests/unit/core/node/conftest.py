"""An API server in memory behind the transport of clients, Pods as documents, and agents that are stopped after the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from core.client.rest import Client
from core.client.transport import JSON, RawEvent
from core.clock import timestamp
from core.errors import AlreadyExists, Conflict, NotFound, ServiceUnavailable
from core.node.agent import Agent
from core.node.runtime.base import Runtime

Document = dict[str, Any]


class MemoryApi:
    """Objects by path; collections are watched. It knows what a node needs and no more: merge patches, graceful deletion."""

    def __init__(self) -> None:
        self.objects: dict[str, Document] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Document] = []
        self.down = False
        self.gate: asyncio.Event = asyncio.Event()
        self.gate.set()
        self.revision = 0
        self._watchers: list[tuple[str, str, asyncio.Queue[RawEvent | ServiceUnavailable]]] = []
        self._changed = asyncio.Event()

    # Transport

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        self.requests.append((method, path))
        if self.down:
            raise ServiceUnavailable("connection refused")
        document = json.loads(body) if body else {}
        self.bodies.append(document)
        if method == "PATCH" and path.endswith("/status"):
            await self.gate.wait()
        return json.dumps(self._answer(method, path, dict(query or {}), document)).encode()

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        queue: asyncio.Queue[RawEvent | ServiceUnavailable] = asyncio.Queue()
        entry = (path, query.get("fieldSelector", ""), queue)
        self._watchers.append(entry)
        try:
            while True:
                found = await queue.get()
                if isinstance(found, ServiceUnavailable):
                    raise found
                yield [found]
        finally:
            self._watchers.remove(entry)

    async def close(self) -> None:
        pass

    def _answer(self, method: str, path: str, query: dict[str, str], body: Document) -> Document:
        main = path.removesuffix("/status")
        if method == "POST":
            name = body["metadata"]["name"]
            if f"{path}/{name}" in self.objects:
                raise AlreadyExists(f"{name} already exists")
            body["metadata"].setdefault("uid", f"uid-{name}")
            return self.put(f"{path}/{name}", body)
        if method == "GET" and path.rpartition("/")[2] in (
            "pods",
            "replicasets",
            "services",
            "secrets",
            "configmaps",
        ):
            found = [
                each
                for key, each in self.objects.items()
                if self._in(key, path) and _selected(each, query.get("fieldSelector", ""))
            ]
            return {"metadata": {"resourceVersion": str(self.revision)}, "items": found}
        if main not in self.objects:
            raise NotFound(f"{main} not found")
        current = self.objects[main]
        if method == "PATCH":
            uid = body.get("metadata", {}).get("uid")
            if uid and uid != current["metadata"]["uid"]:
                raise Conflict("another uid")
            return self.put(main, _merged(current, body))
        if method == "DELETE":
            uid = body.get("preconditions", {}).get("uid")
            if uid and uid != current["metadata"]["uid"]:
                raise Conflict("another uid")
            grace = body.get("gracePeriodSeconds")
            if grace == 0:
                return self.remove(main)
            self.delete_gracefully(main, 30 if grace is None else grace)
        return self.objects[main]

    @staticmethod
    def _in(key: str, collection: str) -> bool:
        plural = collection.rpartition("/")[2]
        if "/namespaces/" in collection:
            return key.rpartition("/")[0] == collection
        return f"/{plural}/" in key

    # What a test does

    def put(self, path: str, document: Document) -> Document:
        self.revision += 1
        kind = "MODIFIED" if path in self.objects else "ADDED"
        document = json.loads(json.dumps(document))
        document["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[path] = document
        self._tell(path, kind, document)
        return document

    def remove(self, path: str) -> Document:
        self.revision += 1
        document = self.objects.pop(path)
        self._tell(path, "DELETED", document)
        return document

    def delete_gracefully(self, path: str, grace: int) -> None:
        metadata = {"deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": grace}
        self.put(path, _merged(self.objects[path], {"metadata": metadata}))

    def crash(self, path: str, document: Document) -> None:
        """Come back with an object as it was at some time before: its last writes were not durable."""
        self.objects[path] = document
        for _, _, queue in self._watchers:
            queue.put_nowait(ServiceUnavailable("the connection broke"))

    def _tell(self, path: str, kind: str, document: Document) -> None:
        for collection, fields, queue in self._watchers:
            if self._in(path, collection) and _selected(document, fields):
                queue.put_nowait(RawEvent(kind, json.dumps(document).encode()))
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, holds: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Wait until that holds, looking after each write; returns what it gave."""
        async with asyncio.timeout(timeout):
            while True:
                changed = self._changed
                try:
                    found = holds()
                except (KeyError, IndexError, StopIteration):
                    found = None
                if found:
                    return found
                await changed.wait()


def _selected(document: Document, fields: str) -> bool:
    if fields.startswith("spec.nodeName="):
        return document["spec"].get("nodeName") == fields.partition("=")[2]
    if fields.startswith("metadata.name="):
        return bool(document["metadata"]["name"] == fields.partition("=")[2])
    return True


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    found = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found


class Cluster:
    """The API, and what tests read of it."""

    def __init__(self, tmp: Path) -> None:
        self.api = MemoryApi()
        self.tmp = tmp
        self.stack = AsyncExitStack()

    def pod(self, name: str = "a", uid: str = "", node: str = "n1", **spec: Any) -> str:
        """Create a Pod that is bound to the node; returns its path."""
        spec.setdefault("containers", [{"name": "main", "image": "busybox"}])
        document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-{name}", "labels": {"app": name}},
            "spec": {"nodeName": node, **spec},
            "status": {"phase": "Pending"},
        }
        path = f"/api/v1/namespaces/default/pods/{name}"
        self.api.put(path, document)
        return path

    def status(self, path: str) -> Document:
        found: Document = self.api.objects[path]["status"]
        return found

    def state(self, path: str, index: int = 0) -> Document:
        found: Document = self.status(path)["containerStatuses"][index]["state"]
        return found

    def ready(self, path: str) -> bool:
        return any(
            each["type"] == "Ready" and each["status"] == "True" for each in self.status(path).get("conditions", ())
        )

    async def until_ready(self, path: str) -> Document:
        await self.api.until(lambda: self.ready(path))
        return self.status(path)

    async def until_phase(self, path: str, phase: str) -> Document:
        await self.api.until(lambda: self.status(path)["phase"] == phase)
        return self.status(path)

    async def until_gone(self, path: str, timeout: float = 30.0) -> None:
        await self.api.until(lambda: path not in self.api.objects, timeout)

    async def agent(self, runtime: Runtime, **options: Any) -> Agent:
        settings: dict[str, Any] = {
            "data_dir": self.tmp / "node",
            "log_root": self.tmp / "logs",
            "address": "127.0.0.1",
            "capacity": {"cpu": "2", "memory": "4Gi", "pods": "100"},
            **options,
        }
        agent = Agent(Client(self.api), "n1", runtime, **settings)
        await agent.start()
        self.stack.push_async_callback(agent.stop)
        return agent


StartAgent = Callable[..., Awaitable[Agent]]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    found = Cluster(tmp_path)
    try:
        yield found
    finally:
        await found.stack.aclose()
    leaked = {each for each in asyncio.all_tasks() if each is not asyncio.current_task() and not each.done()}
    assert not leaked, f"leaked tasks: {leaked}"
