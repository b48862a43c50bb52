"""Informers under torture: cut connections, a restarted server, a compacted log, writers all the while.

Half of the informers are this project's, which list anew after a broken connection; half go on from the version they had seen, as
client-go's do, and list only when that has expired. Whatever happens, each ends with what the store has, and none sees
an event twice or out of order.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.api.kinds import CONFIG_MAP
from core.api.views import ObjectView
from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.client.http import HttpTransport
from core.client.informer import Informers
from core.client.rest import Client
from core.client.transport import RawEvent
from core.errors import ApiError, Conflict, Expired, NotFound, ServiceUnavailable
from core.serving import AsgiServer
from core.store.sqlite import SqliteStore

NAMESPACES = ("default", "kube-system")
SELECTORS = ("", "tier=a", "tier=b", "tier in (a,b)", "tier!=a", "!tier", "tier,color=red", "color notin (red,blue)")
INFORMERS, WRITERS, NAMES = 50, 20, 60
PATIENCE = 45.0


class Server:
    """An API server on a file, which can be stopped and started again at the same port."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Bound and never listening: nobody else gets the port while the server is down, and it can have it again.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self.restarts = 0

    async def start(self) -> None:
        self.store = SqliteStore(self._path)
        self.api = ApiServer(self.store, tokens={"t": User("admin", ("system:masters",))})
        await self.api.start()
        self._serving = AsgiServer(self.api, socket.create_server(("127.0.0.1", self.port)), drain=0.2)
        await self._serving.start()

    async def stop(self) -> None:
        await self.api.stop()
        await self._serving.stop()
        await self.store.close()

    async def restart(self) -> None:
        self.restarts += 1
        await self.stop()
        await self.start()

    async def close(self) -> None:
        await self.stop()
        self._holder.close()


class Cutter:
    """A proxy on the way to the server that can cut what goes through it, in the middle of a line."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._connections: set[asyncio.Task[None]] = set()
        self.cuts = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            back, upstream = await asyncio.open_connection("127.0.0.1", self._to)
            await asyncio.gather(_copy(reader, upstream), _copy(back, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            for each in (writer, upstream):
                if each is not None:
                    each.transport.abort()

    def cut(self, share: float) -> None:
        for each in list(self._connections):
            if random.random() < share:
                self.cuts += 1
                each.cancel()

    async def stop(self) -> None:
        self._server.close()
        tasks = list(self._connections)
        self.cut(1.0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(random.choice((100, 1000, 65536))):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


class Checked(HttpTransport):
    """A transport that holds every single watch to its order."""

    watches = 0
    expired = 0

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[list[RawEvent], None]:
        Checked.watches += 1
        last = int(query.get("resourceVersion") or 0)
        try:
            async with aclosing(super().watch(path, query)) as batches:
                async for batch in batches:
                    for event in batch:
                        version = int(msgspec.json.decode(event.object)["metadata"]["resourceVersion"])
                        assert version > last or (event.type == "BOOKMARK" and version == last), (
                            f"{event.type} {version} after {last}"
                        )
                        last = version
                    yield batch
        except Expired:
            Checked.expired += 1
            raise


class History:
    """What one informer saw: each change begins where the last one ended and goes forward."""

    def __init__(self, what: str, changed: asyncio.Event) -> None:
        self.seen: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._what = what
        self._changed = changed
        self.faults: list[str] = []
        self.changes = 0

    def __call__(self, old: ObjectView | None, new: ObjectView | None) -> None:
        self.changes += 1
        self._changed.set()
        known = new or old
        assert known is not None
        key = known.key
        before = int(old.metadata.resource_version) if old else None
        if self.seen.get(key) != before:
            self.faults.append(f"{self._what}: {key} changed from {before}, was {self.seen.get(key)}")
        if new is None:
            self.seen.pop(key, None)
            return
        version = int(new.metadata.resource_version)
        if version <= self._newest.get(key, 0):
            self.faults.append(f"{self._what}: {key} at {version} after {self._newest[key]}")
        self.seen[key] = self._newest[key] = version


class Reflector:
    """Goes on from the last version seen after a broken connection, and lists only where that has expired: client-go's way."""

    def __init__(self, client: Client, namespace: str, labels: str, history: History) -> None:
        self._client, self._where = client, {"namespace": namespace, "labels": labels}
        self._history = history
        self._objects: dict[str, ObjectView] = {}
        self._version = ""
        self.relists = 0
        self.resumed = 0

    async def run(self) -> None:
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Expired:
                self._version = ""
            except (ServiceUnavailable, ApiError):
                self.resumed += bool(self._version)
                await asyncio.sleep(0.01)

    async def _list(self) -> None:
        self.relists += 1
        items, self._version = await self._client.list(
            CONFIG_MAP, self._where["namespace"], labels=self._where["labels"], as_=ObjectView
        )
        found = {each.key: each for each in items}
        for key in [each for each in self._objects if each not in found]:
            self._set(key, None)
        for key, each in found.items():
            old = self._objects.get(key)
            if old is None or old.metadata.resource_version != each.metadata.resource_version:
                self._set(key, each)

    async def _watch(self) -> None:
        events = self._client.watch(
            CONFIG_MAP, self._where["namespace"], version=self._version, labels=self._where["labels"], seconds=60
        )
        async with aclosing(events):
            async for batch in events:
                for event in batch:
                    new = msgspec.json.decode(event.object, type=ObjectView)
                    self._version = new.metadata.resource_version
                    if event.type != "BOOKMARK":
                        self._set(new.key, None if event.type == "DELETED" else new)

    def _set(self, key: str, new: ObjectView | None) -> None:
        old = self._objects.pop(key, None)
        if new is not None:
            self._objects[key] = new
        self._history(old, new)


class Writer:
    """Creates, changes, moves between selectors and deletes objects at random until told to stop."""

    def __init__(self, client: Client, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self.writes = 0

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                await self._once()
                self.writes += 1
            except (Conflict, NotFound):
                pass
            except (ServiceUnavailable, ApiError):
                await asyncio.sleep(0.02)

    async def _once(self) -> None:
        pick = self._random
        namespace, name = pick.choice(NAMESPACES), f"m-{pick.randrange(NAMES)}"
        labels = {"tier": pick.choice("abc"), "color": pick.choice(("red", "blue", "green"))}
        chosen = {key: value for key, value in labels.items() if pick.random() < 0.7}
        match pick.randrange(4):
            case 0:
                await self._client.delete(CONFIG_MAP, name, namespace)
            case 1:
                document = {"metadata": {"name": name, "labels": chosen}, "data": {"n": str(pick.random())}}
                await self._client.create(CONFIG_MAP, document, namespace)
            case _:
                await self._client.patch(
                    CONFIG_MAP, name, namespace,
                    {"metadata": {"labels": {"tier": None, "color": None, **chosen}}, "data": {"n": str(pick.random())}},
                )  # fmt: skip


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "state.db")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def cutter(server: Server) -> AsyncIterator[Cutter]:
    made = Cutter(server.port)
    await made.start()
    yield made
    await made.stop()


async def test_every_cache_ends_as_the_store(server: Server, cutter: Cutter) -> None:
    changed, over, dice = asyncio.Event(), asyncio.Event(), random.Random(7)
    Checked.watches = Checked.expired = 0
    transports: list[HttpTransport] = []

    def client(port: int) -> Client:
        transports.append(Checked(f"http://127.0.0.1:{port}", token="t"))
        return Client(transports[-1])

    histories: list[tuple[str, str, History]] = []
    sets, reflectors = [], []
    for index in range(INFORMERS):
        namespace, labels = dice.choice(("", *NAMESPACES)), dice.choice(SELECTORS)
        history = History(f"informer {index} of {labels!r} in {namespace!r}", changed)
        histories.append((namespace, labels, history))
        if index % 2:
            informers = Informers(client(cutter.port))
            informers.watch(CONFIG_MAP, ObjectView, namespace=namespace, labels=labels).add_handler(history)
            sets.append(informers)
        else:
            reflectors.append(Reflector(client(cutter.port), namespace, labels, history))
    for each in sets:
        await each.start()
    watching = [asyncio.create_task(each.run()) for each in reflectors]
    writing = client(server.port)
    writers = [Writer(writing, seed) for seed in range(WRITERS)]
    tasks = [asyncio.create_task(each.run(over)) for each in writers]

    async def wait_for_writes(count: int) -> None:
        goal = sum(each.writes for each in writers) + count
        async with asyncio.timeout(PATIENCE):
            while sum(each.writes for each in writers) < goal:
                changed.clear()
                await changed.wait()

    for round_ in range(8):
        await wait_for_writes(100)
        cutter.cut(0.3)
        if round_ == 2:
            await server.restart()
        if round_ == 4:
            # Everybody loses the connection, and what they would go on from is gone before they are back.
            cutter.cut(1.0)
            await server.store.compact(server.store.revision)
    over.set()
    await asyncio.gather(*tasks)

    async def truth(namespace: str, labels: str) -> dict[str, int]:
        items, _ = await writing.list(CONFIG_MAP, namespace, labels=labels, as_=ObjectView)
        return {each.key: int(each.metadata.resource_version) for each in items}

    try:
        wanted = [(await truth(namespace, labels), history) for namespace, labels, history in histories]
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while any(history.seen != expected for expected, history in wanted):
                    changed.clear()
                    await changed.wait()
        for expected, history in wanted:
            assert history.seen == expected
        assert [fault for _, history in wanted for fault in history.faults] == []
        assert all(history.changes for _, history in wanted)
        # What the torture was meant to do has happened.
        assert cutter.cuts > INFORMERS and server.restarts == 1
        assert Checked.expired > 0 and sum(each.resumed for each in reflectors) > len(reflectors)
        assert sum(each.relists for each in reflectors) > len(reflectors)
    finally:
        for each in (*tasks, *watching):
            each.cancel()
        await asyncio.gather(*tasks, *watching, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in sets))
        for transport in transports:
            await transport.close()


@pytest.fixture(autouse=True)
def seeded() -> Any:
    random.seed(11)
