"""Commands, attachments and ports over real sockets, between WebSocket and SPDY clients and processes in memory."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette

from core.node.runtime.base import ContainerSpec, RuntimeFailure, SandboxSpec
from core.node.runtime.fake import FakeRuntime
from core.node.streams.channels import exit_status, terminal_size
from core.node.streams.endpoints import NotRunning, StreamEndpoints
from core.node.streams.spdy import Codec, Data, Frame, GoAway, Ping, Reset, SynReply
from core.serving import AsgiServer
from core.upgrade import PIECE, Refused, ask


class Node:
    """A node with one running container, `default/a/main`, whose Pod's address is this machine's."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.container = ""

    async def start(self) -> None:
        await self.runtime.start()
        sandbox = await self.runtime.create_sandbox(SandboxSpec("u", "a", "default", ""))
        self.container = await self.runtime.create_container(sandbox.id, ContainerSpec("main", "image", stdin=True))
        await self.runtime.start_container(self.container)

    def running_container(self, namespace: str, pod: str, container: str) -> str:
        if (namespace, pod, container) != ("default", "a", "main"):
            raise NotRunning(f'container not found ("{container}")')
        return self.container

    def pod_address(self, namespace: str, pod: str) -> str:
        if pod != "a":
            raise NotRunning(f'pod "{pod}" is not running')
        return "127.0.0.1"


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    found = Node()
    await found.start()
    yield found
    found.runtime.discard()


@pytest.fixture
async def address(node: Node) -> AsyncIterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = AsgiServer(Starlette(routes=StreamEndpoints(node).routes()), listener, drain=0.5)
    await server.start()
    yield listener.getsockname()
    await server.stop()


@pytest.fixture
async def connect(address: tuple[str, int]) -> AsyncIterator[Callable[..., Awaitable[aiohttp.ClientWebSocketResponse]]]:
    async with aiohttp.ClientSession(f"http://{address[0]}:{address[1]}") as session:

        async def call(path: str, *protocols: str) -> aiohttp.ClientWebSocketResponse:
            wanted = protocols or ("v5.channel.k8s.io",)
            return await session.ws_connect(path, protocols=() if wanted == ("",) else wanted)

        yield call


async def everything(client: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    """What came on each channel, until the server's end."""
    found: dict[int, bytes] = {}
    async with asyncio.timeout(10):
        async for message in client:
            assert message.type is aiohttp.WSMsgType.BINARY
            found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
    assert client.close_code == 1000
    return found


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b'{"Width":80,"Height":24}', (80, 24)),
        (b'{"Width":0,"Height":24}', None),
        (b'{"Width":70000,"Height":24}', None),
        (b'{"Width":"80","Height":24}', None),
        (b"[80, 24]", None),
        (b"80", None),
        (b"", None),
        (b'{"Width":true,"Height":24}', None),
    ],
)
def test_sizes(text: bytes, size: tuple[int, int] | None) -> None:
    assert terminal_size(text) == size


def test_exit_statuses_are_what_clients_look_for() -> None:
    assert json.loads(exit_status(0)) == {"metadata": {}, "status": "Success"}
    found = json.loads(exit_status(7))
    assert (found["status"], found["reason"]) == ("Failure", "NonZeroExitCode")
    assert found["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_output_and_exit_code(connect: Any) -> None:
    client = await connect("/exec/default/a/main?command=echo&command=hello&command=&output=1&error=1")
    assert client.protocol == "v5.channel.k8s.io"
    assert await everything(client) == {1: b"hello \n", 3: exit_status(0)}
    client = await connect("/exec/default/a/main?command=exit&command=7&output=1", "v4.channel.k8s.io")
    assert client.protocol == "v4.channel.k8s.io"
    assert await everything(client) == {3: exit_status(7)}


async def test_the_best_protocol_is_chosen_and_none_is_refused(connect: Any) -> None:
    client = await connect("/exec/default/a/main?command=echo&output=1", "v4.channel.k8s.io", "v5.channel.k8s.io")
    assert client.protocol == "v5.channel.k8s.io"
    await client.close()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect("/exec/default/a/main?command=echo&output=1", "v1.channel.k8s.io")
    assert refused.value.status == 400


async def test_input_ends_with_v5s_close(connect: Any) -> None:
    client = await connect("/exec/default/a/main?command=cat&input=1&output=1")
    await client.send_bytes(b"\x00one ")
    await client.send_str("\x00two")
    await client.send_bytes(b"\xff\x01")  # another channel's end is nothing to it
    await client.send_bytes(b"")
    await client.send_bytes(b"\x09what is this")
    await client.send_bytes(b"\xff\x00")
    assert await everything(client) == {1: b"one two", 3: exit_status(0)}


async def test_v4_knows_no_close(connect: Any, node: Node) -> None:
    client = await connect("/exec/default/a/main?command=cat&input=1&output=1", "v4.channel.k8s.io")
    await client.send_bytes(b"\xff\x00")
    await client.send_bytes(b"\x00still here")
    assert (await client.receive()).data == b"\x01still here"
    await client.close()


async def test_unwanted_streams_are_not_sent(connect: Any) -> None:
    client = await connect("/exec/default/a/main?command=complain&command=x&output=1")
    assert await everything(client) == {3: exit_status(0)}


async def test_a_terminal_is_resized(connect: Any) -> None:
    client = await connect("/exec/default/a/main?command=size&input=1&output=1&tty=1")
    await client.send_bytes(b"\x04nonsense")
    await client.send_bytes(b'\x04{"Width":132,"Height":43}')
    assert await everything(client) == {1: b"43 132\r\n", 3: exit_status(0)}


async def test_a_client_that_goes_ends_the_process(connect: Any, node: Node) -> None:
    gone = asyncio.Event()

    async def waiting(streams: Any, command: Any) -> int:
        await streams.say(b"up")
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return 0

    node.runtime.programs["waiting"] = waiting
    for how in ("close", "cut"):
        gone.clear()
        client = await connect("/exec/default/a/main?command=waiting&output=1")
        assert (await client.receive()).data == b"\x01up"
        if how == "close":
            await client.close()
        else:
            client._response.connection.transport.abort()
        async with asyncio.timeout(5):
            await gone.wait()


WEBSOCKET = [
    ("Host", "x"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("Sec-WebSocket-Protocol", "v4.channel.k8s.io"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\xff" + (5 << 20).to_bytes(8, "big") + b"mask", 1009),  # too long a message
        (b"\x82\x05hello", 1002),  # not masked
        (b"\xf2\x80mask", 1002),  # bits of no extension of ours
    ],
)
async def test_what_is_no_websocket_is_closed_with_the_reason(address: Any, sent: bytes, code: int) -> None:
    path = "/exec/default/a/main?command=cat&input=1&output=1"
    found = await ask(address, "GET", path, WEBSOCKET)
    found.writer.write(sent)
    async with asyncio.timeout(5):
        data = await found.reader.read()
    assert data[0] == 0x88 and int.from_bytes(data[2:4], "big") == code
    found.writer.close()
    await found.writer.wait_closed()


async def test_a_runtime_that_breaks_is_a_failure_on_the_error_channel(connect: Any, node: Node) -> None:
    class Broken:
        async def read(self) -> tuple[int, bytes]:
            raise RuntimeFailure("the engine is gone")

        async def close(self) -> None: ...

    async def open_exec(*arguments: Any, **more: Any) -> Any:
        return Broken()

    node.runtime.open_exec = open_exec  # type: ignore[method-assign]
    found = await everything(await connect("/exec/default/a/main?command=x&output=1"))
    status = json.loads(found[3])
    assert status["reason"] == "InternalError" and "the engine is gone" in status["message"]


async def test_attach_shows_what_the_container_says(connect: Any, node: Node) -> None:
    client = await connect("/attach/default/a/main?input=1&output=1&error=1")
    await client.send_bytes(b"\x00hello")
    assert (await client.receive()).data == b"\x01hello"
    node.runtime.finish(node.container)
    assert await everything(client) == {3: exit_status(0)}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/exec/default/a/main?output=1", 400, b"at least 1 command"),
        ("/exec/default/a/main?command=x", 400, b"at least 1 of stdin, stdout, stderr"),
        ("/exec/default/a/none?command=x&output=1", 500, b'container not found ("none")'),
        ("/portForward/default/b?port=80", 500, b'pod "b" is not running'),
        ("/portForward/default/a", 400, b'"port" is required'),
        ("/portForward/default/a?port=x", 400, b"invalid literal"),
    ],
)
async def test_refusals_are_plain_http(address: Any, path: str, status: int, words: bytes) -> None:
    with pytest.raises(Refused) as refused:
        await ask(address, "GET", path, WEBSOCKET)
    assert refused.value.status == status and words in refused.value.body


async def test_without_an_upgrade_nothing_streams(address: Any) -> None:
    url = f"http://{address[0]}:{address[1]}/exec/default/a/main?command=x&output=1"
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        assert (reply.status, await reply.text()) == (400, "Upgrade request required: to websocket or SPDY/3.1")


class Spdy:
    """A client over a bare connection."""

    def __init__(self, connection: Any) -> None:
        self.reader, self.writer = connection.reader, connection.writer
        self.codec = Codec()
        self.frames: list[Frame] = []
        self.said: dict[int, bytes] = {}
        self.ended: set[int] = set()

    @classmethod
    async def connect(cls, address: tuple[str, int], path: str, protocol: str) -> Spdy:
        headers = [("Host", "x"), ("Upgrade", "SPDY/3.1"), ("Connection", "Upgrade"), ("Content-Length", "0"),
                   ("X-Stream-Protocol-Version", "v9.channel.k8s.io"), ("X-Stream-Protocol-Version", protocol)]  # fmt: skip
        found = await ask(address, "POST", path, headers)
        assert found.headers["x-stream-protocol-version"] == protocol
        return cls(found)

    async def next(self) -> Frame | None:
        async with asyncio.timeout(10):
            while not self.frames:
                data = await self.reader.read(65536)
                if not data:
                    return None
                self.frames += self.codec.feed(data)
        return self.frames.pop(0)

    async def rest(self) -> list[Frame]:
        found = []
        while (frame := await self.next()) is not None:
            found.append(frame)
        self.writer.close()
        await self.writer.wait_closed()
        return found


async def test_a_command_over_spdy(address: Any) -> None:
    client = await Spdy.connect(address, "/exec/default/a/main?command=cat&input=1&output=1", "v4.channel.k8s.io")
    for stream, kind in ((1, "error"), (3, "stdin"), (5, "stdout"), (7, "nonsense")):
        client.writer.write(client.codec.syn_stream(stream, {"streamType": kind}))
    client.writer.write(client.codec.ping(1) + client.codec.data(3, b"hello") + client.codec.data(3, b"", fin=True))
    found: list[Frame] = []
    while Data(5, b"", True) not in found:
        frame = await client.next()
        assert frame is not None
        found.append(frame)
    client.writer.close()
    await client.rest()
    assert [each for each in found if isinstance(each, SynReply)] == [SynReply(each, {}) for each in (1, 3, 5)]
    assert Reset(7, 1) in found and Ping(1) in found
    assert [each for each in found if isinstance(each, Data)] == [
        Data(5, b"hello"), Data(1, exit_status(0), True), Data(3, b"", True), Data(5, b"", True),
    ]  # fmt: skip


async def test_what_is_not_spdy_is_told_to_go(address: Any) -> None:
    client = await Spdy.connect(address, "/portForward/default/a", "portforward.k8s.io")
    client.writer.write(client.codec.syn_stream(3, {}) + client.codec.syn_stream(3, {}))
    assert await client.rest() == [Reset(3, 1), GoAway(3, 1)]


async def test_who_reads_late_gets_everything(address: Any, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a pager: the process has ended, and the client has not begun to read."""
    monkeypatch.setattr("core.upgrade._CLOSE_SECONDS", 0.05)
    said = bytes(200_000)

    async def saying(streams: Any, command: Any) -> int:
        await streams.say(said)
        return 0

    node.runtime.programs["saying"] = saying
    found = await ask(address, "GET", "/exec/default/a/main?command=saying&output=1", WEBSOCKET)
    found.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0.3)  # by then whoever cuts has cut
    found.writer.transport.resume_reading()  # type: ignore[attr-defined]
    seen = b""
    async with asyncio.timeout(5):
        while not seen.endswith(b"\x88\x02\x03\xe8"):
            data = await found.reader.read(PIECE)
            assert data, "it was cut"
            seen += data
    assert len(seen) > len(said) and b'"Success"' in seen
    found.writer.close()
    await found.writer.wait_closed()


# Ports


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that says `hello `, then what it hears, and closes when it hears the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        try:
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that is taken, and at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def heard(client: aiohttp.ClientWebSocketResponse, channel: int, wanted: bytes) -> None:
    found = b""
    while found != wanted:
        message = await client.receive(timeout=10)
        assert message.data[0] == channel, message
        found += message.data[1:]
        assert wanted.startswith(found)


async def test_ports_over_a_websocket(connect: Any, echo: int, closed: int) -> None:
    client = await connect(f"/portForward/default/a?port={echo}&port={closed}", "v4.channel.k8s.io")
    found: dict[int, bytes] = {}
    wanted = b"error forwarding port %d to pod default/a: nothing listens at 127.0.0.1:%d, the Pod's own address" % (
        closed,
        closed,
    )
    while len(found.get(3, b"")) < 2 + len(wanted) or len(found.get(0, b"")) < 8:
        message = await client.receive(timeout=10)
        found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
    first, second = echo.to_bytes(2, "little"), closed.to_bytes(2, "little")
    assert found == {0: first + b"hello ", 1: first, 2: second, 3: second + wanted}
    await client.send_bytes(b"\x07no such channel")
    await client.send_bytes(b"\x01channels of errors take nothing")
    await client.send_bytes(b"\x00again")
    await heard(client, 0, b"again")
    await client.close()


async def test_a_websocket_ends_with_its_last_connection(connect: Any) -> None:
    async def brief(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()

    async with await asyncio.start_server(brief, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = await connect(f"/portForward/default/a?port={port}", "")  # as kr8s asks
        assert client.protocol is None
        assert await everything(client) == {0: port.to_bytes(2, "little") + b"bye", 1: port.to_bytes(2, "little")}


def pair(client: Spdy, first: int, port: object, request: str) -> None:
    """Open streams `first` for errors and the next one for data."""
    for stream, kind in ((first, "error"), (first + 2, "data")):
        client.writer.write(
            client.codec.syn_stream(stream, {"streamType": kind, "port": str(port), "requestID": request})
        )


async def data_of(client: Spdy, stream: int, until: bytes = b"") -> bytes:
    """What comes on a stream until it ends, or is `until`; what comes on others meanwhile is kept for later."""
    while stream not in client.ended and not (until and client.said.get(stream) == until):
        frame = await client.next()
        assert frame is not None
        if isinstance(frame, Data):
            client.said[frame.stream] = client.said.get(frame.stream, b"") + frame.data
            client.ended |= {frame.stream} if frame.fin else set()
    return client.said.pop(stream, b"")


async def test_ports_over_spdy(address: Any, echo: int, closed: int) -> None:
    client = await Spdy.connect(address, "/portForward/default/a", "portforward.k8s.io")
    pair(client, 1, echo, "0")
    assert await data_of(client, 3, b"hello ") == b"hello "
    pair(client, 5, echo, "1")
    client.writer.write(client.codec.data(3, b"first ") + client.codec.data(7, b"second", fin=True))
    assert await data_of(client, 7) == b"hello second"
    client.writer.write(client.codec.data(3, b"", fin=True))
    assert await data_of(client, 3) == b"first "
    assert await data_of(client, 1) == b""  # whoever reads the stream of errors learns that there were none
    pair(client, 9, closed, "2")
    assert b"nothing listens at" in await data_of(client, 9)
    client.writer.write(client.codec.go_away(11))
    await client.rest()


async def test_a_stream_that_is_reset_ends_its_connection_and_no_other(address: Any, echo: int) -> None:
    client = await Spdy.connect(address, "/portForward/default/a", "portforward.k8s.io")
    pair(client, 1, echo, "0")
    assert await data_of(client, 3, b"hello ") == b"hello "
    client.writer.write(client.codec.reset(3, 5))
    assert await data_of(client, 1) == b""
    pair(client, 5, echo, "1")
    assert await data_of(client, 7, b"hello ") == b"hello "
    client.writer.close()
    await client.writer.wait_closed()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"streamtype": "data", "port": "0", "requestid": "0"},
        {"streamtype": "data", "port": "65536", "requestid": "0"},
        {"streamtype": "data", "port": "http", "requestid": "0"},
        {"streamtype": "stdin", "port": "80", "requestid": "0"},
    ],
)
async def test_streams_that_make_no_sense_are_refused(address: Any, headers: dict[str, str]) -> None:
    client = await Spdy.connect(address, "/portForward/default/a", "portforward.k8s.io")
    client.writer.write(client.codec.syn_stream(1, headers))
    assert await client.next() == Reset(1, 1)
    client.writer.close()
    await client.rest()


async def test_half_a_pair_is_given_up(address: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.node.streams.ports.PAIR_SECONDS", 0.05)
    client = await Spdy.connect(address, "/portForward/default/a", "portforward.k8s.io")
    client.writer.write(client.codec.syn_stream(1, {"streamtype": "data", "port": "80", "requestid": "0"}))
    assert [await client.next(), await client.next()] == [SynReply(1, {}), Reset(1, 5)]
    client.writer.close()
    await client.rest()


async def test_a_pod_that_does_not_read_holds_the_client_up_and_is_then_cut(
    address: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.node.streams.ports.PATIENCE", 0.3)
    silent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await silent.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = await Spdy.connect(address, "/portForward/default/a", "portforward.k8s.io")
        pair(client, 1, server.sockets[0].getsockname()[1], "0")

        async def flood() -> None:
            while True:
                client.writer.write(client.codec.data(3, bytes(60_000)))
                await client.writer.drain()

        flooding = asyncio.create_task(flood())
        try:
            assert b"has not read its connection" in await data_of(client, 1)
        finally:
            silent.set()
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            client.writer.transport.abort()
            await asyncio.gather(client.writer.wait_closed(), return_exceptions=True)


async def test_spdy_inside_of_a_websocket(connect: Any, echo: int) -> None:
    client = await connect("/portForward/default/a", "SPDY/3.1+portforward.k8s.io")
    assert client.protocol == "SPDY/3.1+portforward.k8s.io"
    codec = Codec()
    opened = [codec.syn_stream(1, {"streamtype": "error", "port": str(echo), "requestid": "0"}),
              codec.syn_stream(3, {"streamtype": "data", "port": str(echo), "requestid": "0"}, fin=True)]  # fmt: skip
    wire = b"".join(opened)
    for start in range(0, len(wire), 7):  # messages and frames have nothing to do with each other
        await client.send_bytes(wire[start : start + 7])
    found: list[Frame] = []
    while Data(1, b"", True) not in found:
        found += codec.feed((await client.receive(timeout=10)).data)
    assert b"".join(each.data for each in found if isinstance(each, Data) and each.stream == 3) == b"hello "
    await client.close()
