"""The client of the gateway against a server that answers byte by byte, wrongly, late or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.jobs.calls.sender import Broken, Gate, Sender, Unreachable

TIMEOUT = 5.0
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\ndone"


class Server:
    """Answers each request with `reply`, in pieces of `piece` bytes; counts connections."""

    def __init__(self) -> None:
        self.reply, self.piece, self.close, self.silent = FINE, 1 << 16, False, False
        self.requests: list[bytes] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(each[15:]) for each in head.split(b"\r\n") if each.startswith(b"Content-Length:")), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                if self.silent:
                    continue
                for at in range(0, len(self.reply), self.piece):
                    writer.write(self.reply[at : at + self.piece])
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield found
    listening.close()
    for each in found.writers:
        each.transport.abort()
    await listening.wait_closed()


@pytest.fixture
async def sender(server) -> AsyncIterator[Sender]:
    found = Sender(server.url)
    yield found
    await found.close()


async def send(
    sender: Sender, body: bytes = b"hi", method: str = "POST", limit: int = 100, timeout: float = TIMEOUT, **given
):
    request = sender.request(method, "/function/f?x=1", [("X-B", "c")], body)
    return await sender.send(method, request, limit, timeout, **given)


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    "reply",
    [FINE, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ndo\r\n2\r\nne\r\n0\r\n\r\n",
     b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + FINE],
)  # fmt: skip
async def test_replies_however_they_come(server, sender, reply, piece):
    server.reply, server.piece = reply, piece
    for _ in range(3):
        found = await send(sender)
        assert (found.status, found.body, found.truncated) == (200, b"done", False)
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /function/f?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert server.requests[0].endswith(b"X-B: c\r\nContent-Length: 2\r\n\r\nhi")


async def test_a_body_is_kept_up_to_the_limit_and_read_to_its_end(server, sender):
    found = await send(sender, limit=3)
    assert (found.body, found.truncated) == (b"don", True)
    assert (await send(sender)).body == b"done"
    assert server.connections == 1


async def test_a_body_that_ends_with_the_connection(server, sender):
    server.reply, server.close = b"HTTP/1.1 200 OK\r\n\r\nall of it", True
    for _ in range(2):
        assert (await send(sender)).body == b"all of it"
    assert server.connections == 2


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndone", b"SSH-2.0-x\r\n\r\n"],
)
async def test_what_ends_early_or_is_no_reply_is_broken(server, sender, reply):
    server.reply, server.close = reply, True
    with pytest.raises(Broken):
        await send(sender)
    server.reply, server.close = FINE, False
    assert (await send(sender)).body == b"done"


async def test_no_reply_in_time_and_nobody_there(server, sender, unused_tcp_port):
    server.silent = True
    with pytest.raises(Broken, match="in time"):
        await send(sender, timeout=0.05)
    nobody = Sender(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(Unreachable):
        await send(nobody)
    await nobody.close()


async def test_at_a_gate_nothing_is_sent_before_it_opens(server, sender):
    gate, sent = Gate(0.0), []
    tasks = [asyncio.create_task(send(sender, gate=gate, sent=lambda: sent.append(1))) for _ in range(5)]
    async with asyncio.timeout(TIMEOUT):
        while server.connections < 5:  # noqa: ASYNC110 - the server's side of it
            await asyncio.sleep(0.001)
    assert (server.requests, sent) == ([], [])
    gate.open()
    assert len(sent) == 5
    assert {each.body for each in await asyncio.gather(*tasks)} == {b"done"}
    assert len(server.requests) == 5


async def test_a_connection_that_is_lost_at_the_gate_is_made_anew(server, sender):
    gate = Gate(0.0)
    task = asyncio.create_task(send(sender, gate=gate))
    async with asyncio.timeout(TIMEOUT):
        while not server.connections:  # noqa: ASYNC110 - the server's side of it
            await asyncio.sleep(0.001)
    server.writers[0].transport.abort()
    await asyncio.sleep(0.02)
    gate.open()
    assert (await task).body == b"done"
    assert len(server.requests) == 1
