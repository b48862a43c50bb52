"""Many watches over HTTP: each event once and in order for each, encoded once for all, whoever reads slowly."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.apiserver import fanout
from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.events import line
from core.lull import Lull
from core.serving import AsgiServer

CM = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Reader:
    """A watch over a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._rest = b""
        self.ended = False

    async def begin(self, query: str = "", accept: str = "application/json") -> None:
        head = f"GET {CM}?watch=true{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nAccept: {accept}\r\n\r\n"
        self.writer.write(head.encode())
        assert (await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    async def next(self) -> dict[str, Any]:
        """The next event; raises EOFError at the end of the watch."""
        while b"\n" not in self._rest:
            size = int(await self._reader.readline(), 16)
            self._rest += await self._reader.readexactly(size)
            assert await self._reader.readexactly(2) == b"\r\n"
            if not size:
                raise EOFError
        found, _, self._rest = self._rest.partition(b"\n")
        event: dict[str, Any] = json.loads(found)
        return event

    async def read(self, count: int) -> list[tuple[str, str, str]]:
        found = [await self.next() for _ in range(count)]
        return [
            (each["type"], each["object"]["metadata"]["name"], each["object"].get("data", {}).get("n", ""))
            for each in found
        ]


@pytest.fixture
async def connect(api: Any, admin: Any) -> AsyncIterator[Any]:
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["watch"]}
    await admin.post(f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    await admin.post(f"{rbac}/rolebindings", {"metadata": {"name": "r"}, "roleRef": reference, "subjects": [subject]})
    listener = socket.create_server(("127.0.0.1", 0))
    server = AsgiServer(api, listener, drain=0.2)
    await server.start()
    made: list[Reader] = []

    async def connecting() -> Reader:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, listener.getsockname())
        made.append(Reader(*await asyncio.open_connection(sock=connection, limit=1 << 16)))
        return made[-1]

    yield connecting
    for each in made:
        each.writer.close()
    await asyncio.gather(*(each.writer.wait_closed() for each in made), return_exceptions=True)
    await server.stop()


async def test_all_watches_get_every_event_in_order_and_it_is_encoded_once(connect, admin, monkeypatch):
    encoded: list[str] = []

    def counting(registry: Any, change: Any, form: Any, first: bool) -> bytes:
        encoded.append(change.type)
        return line(registry, change, form, first)

    monkeypatch.setattr(fanout, "line", counting)
    monkeypatch.setattr(fanout, "SLICE", 3)
    await admin.post(CM, {"metadata": {"name": "a"}, "data": {"n": "0"}})
    watches = [await connect() for _ in range(10)]
    async with asyncio.timeout(30):
        for each in watches:
            await each.begin()
            assert await each.read(1) == [("ADDED", "a", "0")]
        await asyncio.sleep(0)
        encoded.clear()
        for number in range(1, 4):
            await admin.put(f"{CM}/a", {"metadata": {"name": "a"}, "data": {"n": str(number)}})
            for each in watches:
                assert await each.read(1) == [("MODIFIED", "a", str(number))]
        assert encoded == ["MODIFIED"] * 3
        await admin.post(CM, {"metadata": {"name": "b"}})
        await admin.delete(f"{CM}/a")
        for each in watches:
            assert await each.read(2) == [("ADDED", "b", ""), ("DELETED", "a", "3")]


async def test_who_selects_sees_only_that_and_is_not_told_of_the_rest(connect, admin):
    one, other, every = await connect(), await connect(), await connect()
    async with asyncio.timeout(30):
        await one.begin("&labelSelector=tier%3Da")
        await other.begin("&fieldSelector=metadata.name%3Dy")
        await every.begin()
        for name, tier in (("x", "a"), ("y", "b"), ("z", "a")):
            await admin.post(CM, {"metadata": {"name": name, "labels": {"tier": tier}}})
        await admin.patch(f"{CM}/x", {"metadata": {"labels": {"tier": "b"}}})
        await admin.patch(f"{CM}/y", {"data": {"n": "1"}})
        assert await one.read(3) == [("ADDED", "x", ""), ("ADDED", "z", ""), ("DELETED", "x", "")]
        assert await other.read(2) == [("ADDED", "y", ""), ("MODIFIED", "y", "1")]
        assert [each for each, _, _ in await every.read(5)] == ["ADDED"] * 3 + ["MODIFIED"] * 2


async def test_a_client_that_reads_late_misses_nothing_and_delays_nobody(connect, admin):
    late, prompt = await connect(), await connect()
    text = "x" * 100_000
    async with asyncio.timeout(60):
        await late.begin()
        await prompt.begin()
        for number in range(60):
            await admin.post(CM, {"metadata": {"name": f"c{number}"}, "data": {"n": str(number), "text": text}})
            assert await prompt.read(1) == [("ADDED", f"c{number}", str(number))]
        assert await late.read(60) == [("ADDED", f"c{number}", str(number)) for number in range(60)]
        await admin.delete(f"{CM}/c0")
        assert await late.read(1) == [("DELETED", "c0", "0")]


async def test_only_the_first_event_of_a_watch_of_tables_has_the_columns(connect, admin):
    watches = [await connect(), await connect()]
    async with asyncio.timeout(30):
        for at, each in enumerate(watches):
            await each.begin("&resourceVersion=" + (await admin.get(CM))["metadata"]["resourceVersion"], TABLE)
            await admin.post(CM, {"metadata": {"name": f"a{at}"}})
            assert [column["name"] for column in (await each.next())["object"]["columnDefinitions"]] == ["Name", "Data", "Age"]  # fmt: skip
        await admin.post(CM, {"metadata": {"name": "b"}})
        for each, count in zip(watches, (2, 1), strict=True):
            for _ in range(count):
                found = await each.next()
                assert "columnDefinitions" not in found["object"]
            assert found["object"]["rows"][0]["cells"][0] == "b"


async def test_the_end_comes_behind_the_last_event(connect, admin, api):
    found = await connect()
    async with asyncio.timeout(30):
        await found.begin()
        await admin.post(CM, {"metadata": {"name": "a"}})
        await api.stop()
        assert await found.read(1) == [("ADDED", "a", "")]
        with pytest.raises(EOFError):
            await found.next()


async def test_an_event_that_cant_be_told_ends_its_watch_alone(connect, admin, monkeypatch, caplog):
    def failing(registry: Any, change: Any, form: Any, first: bool) -> bytes:
        if form.name:
            raise ValueError("no such form")
        return line(registry, change, form, first)

    plain, table = await connect(), await connect()
    async with asyncio.timeout(30):
        await plain.begin()
        await table.begin(accept=TABLE)
        monkeypatch.setattr(fanout, "line", failing)
        await admin.post(CM, {"metadata": {"name": "a"}})
        await admin.post(CM, {"metadata": {"name": "b"}})
        assert await plain.read(2) == [("ADDED", "a", ""), ("ADDED", "b", "")]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
            await table.next()
    assert any("the application failed" in each.message for each in caplog.records)


async def test_the_end_of_the_store_is_found_behind_an_event(connect, admin, store):
    found = await connect()
    async with asyncio.timeout(30):
        await found.begin()
        await admin.post(CM, {"metadata": {"name": "a"}})
        await store.close()  # in the same turn of the event loop, before the event has been written
        assert await found.read(1) == [("ADDED", "a", "")]
        assert (await found.next())["type"] == "ERROR"
        with pytest.raises(EOFError):
            await found.next()


async def test_while_a_pod_is_on_its_way_only_who_starts_it_is_told_at_once(monkeypatch):
    lull = Lull()
    monkeypatch.setattr(fanout, "LULL", lull)
    line_of = fanout.Fanout()
    told: list[str] = []
    over = asyncio.Event()

    class Watch:
        def __init__(self, name: str, urgent: bool) -> None:
            self.name, self.urgent = name, urgent

        def deliver(self) -> None:
            told.append(self.name)
            if len(told) == 3:
                over.set()

    lull.disturb()
    for each in (Watch("gateway", False), Watch("node", True), Watch("jobs", False)):
        line_of.add(each)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert told == ["node"]
    async with asyncio.timeout(10):
        await over.wait()
    assert told == ["node", "gateway", "jobs"]
    monkeypatch.setattr(fanout, "LULL", Lull())
    line_of.add(Watch("gateway", False))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert told[3:] == ["gateway"]


@pytest.mark.parametrize(
    ("groups", "urgent"), [(("system:nodes", "system:masters"), True), (("system:masters",), False)]
)
async def test_a_nodes_watch_of_pods_is_urgent(store, monkeypatch, groups, urgent):
    made: list[tuple[str, bool]] = []

    class Told(fanout.Feed):
        def __init__(self, line_of: Any, stream: Any, chunks: Any, urgent: bool = False) -> None:
            made.append((stream.registry.kind.kind, urgent))
            super().__init__(line_of, stream, chunks, urgent)

    monkeypatch.setattr("core.apiserver.edge.Feed", Told)
    listener = socket.create_server(("127.0.0.1", 0))
    api = ApiServer(store, tokens={"secret": User("system:node:n1", groups, "u-8")})
    await api.start()
    server = AsgiServer(api, listener, drain=0.2)
    await server.start()
    for path in ("/api/v1/pods", "/api/v1/nodes"):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        query = (
            "watch=true&fieldSelector=spec.nodeName%3Dn1"
            if path.endswith("pods")
            else "watch=true&fieldSelector=metadata.name%3Dn1"
        )
        writer.write(f"GET {path}?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n".encode())
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
    await server.stop()
    await api.stop()
    assert made == [("Pod", urgent), ("Node", False)]
