"""Asking for another protocol, and joining two connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from core.upgrade import Refused, ask, splice

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with asyncio.timeout(10):
        yield server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()


def saying(text: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        writer.close()

    return handler


async def test_a_request_says_what_it_is_given_and_the_answer_is_kept() -> None:
    heard: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        heard.append(await reader.readexactly(2))
        writer.write(b"HTTP/1.1 101 Yes\r\nUpgrade: x\r\n\r\nrest")
        writer.close()

    async with served(handler) as address:
        found = await ask(address, "POST", "/p?a=b", [("Host", "h"), ("Upgrade", "x"), ("Content-Length", "2")], b"{}")
        assert found.head == b"HTTP/1.1 101 Yes\r\nUpgrade: x\r\n\r\n" and found.headers == {"upgrade": "x"}
        assert await found.reader.read() == b"rest"
        found.writer.close()
        await found.writer.wait_closed()
    assert heard == [b"POST /p?a=b HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\n", b"{}"]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno and more", 403, b"no"),
        (b"HTTP/1.1 500 Oh\r\n\r\nuntil the end", 500, b"until the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", 200, b""),
    ],
)
async def test_anything_but_101_is_a_refusal(answer: bytes, status: int, body: bytes) -> None:
    async with served(saying(answer)) as address:
        with pytest.raises(Refused) as refused:
            await ask(address, "GET", "/", [])
    assert (refused.value.status, refused.value.body) == (status, body)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionResetError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ValueError),
        (b"HTTP/1.1 101 Yes\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", ValueError),
    ],
)
async def test_what_is_not_http_is_an_error(answer: bytes, error: type[Exception]) -> None:
    async with served(saying(answer)) as address:
        with pytest.raises(error):
            await ask(address, "GET", "/", [])


async def test_nobody_there_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            await ask(taken.getsockname(), "GET", "/", [])


async def ends() -> tuple[
    tuple[asyncio.StreamReader, asyncio.StreamWriter], tuple[asyncio.StreamReader, asyncio.StreamWriter]
]:
    one, other = socket.socketpair()
    return await asyncio.open_connection(sock=one), await asyncio.open_connection(sock=other)


async def test_joined_connections_pass_on_everything_and_end_together() -> None:
    (near, left), (far, right) = await ends(), await ends()
    joined = asyncio.create_task(splice(left, far))
    near[1].write(b"a" * 3_000_000)
    right[1].write(b"back")
    assert await right[0].readexactly(3_000_000) == b"a" * 3_000_000
    assert await near[0].readexactly(4) == b"back"
    right[1].write(b"last")
    right[1].close()
    assert await near[0].read() == b"last"  # what was said before the end arrives
    await joined
    near[1].close()
    await asyncio.gather(near[1].wait_closed(), right[1].wait_closed())


async def test_nothing_is_read_faster_than_the_other_side_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.upgrade._CLOSE_SECONDS", 0.05)
    (near, left), (far, right) = await ends(), await ends()
    right[1].transport.pause_reading()  # type: ignore[attr-defined]
    joined = asyncio.create_task(splice(left, far))

    async def flood() -> None:
        for _ in range(64):
            near[1].write(bytes(1 << 20))
            await near[1].drain()

    flooding = asyncio.create_task(flood())
    await asyncio.wait((flooding,), timeout=0.3)
    assert not flooding.done()
    flooding.cancel()
    joined.cancel()
    await asyncio.gather(flooding, joined, return_exceptions=True)
    for _, writer in (near, right):
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
