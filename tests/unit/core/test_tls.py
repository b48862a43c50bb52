"""TLS in memory over a plain transport, with the clients of asyncio and of `ssl` at its other end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core import tls
from core.tls import Secured
from faaslite.launch.pki import Pki

PATIENCE = 60.0


class Echo(asyncio.Protocol):
    """Sends back what it gets, and reads no more while the client doesn't take it."""

    def __init__(self) -> None:
        self.transport: Secured
        self.seen = b""
        self.ended = False
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Secured)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen += data
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set_result(None)


class Site:
    def __init__(self, pki: Pki, address: tuple[str, int]) -> None:
        self.pki = pki
        self.address = address
        self.protocols: asyncio.Queue[Echo] = asyncio.Queue()
        self.known: set[Secured] = set()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Echo]:
        reader, writer = await asyncio.open_connection(*self.address, ssl=self.pki.client_context())
        return reader, writer, await self.protocols.get()


@contextlib.asynccontextmanager
async def serving(folder: Path, make: Callable[[], Echo] = Echo) -> AsyncIterator[Site]:
    (folder / "pki").mkdir(mode=0o700)
    pki = Pki(folder / "pki")
    pki.prepare(["127.0.0.1"], [])
    context = pki.server_context("apiserver")
    listener = socket.create_server(("127.0.0.1", 0))
    site = Site(pki, listener.getsockname())
    loop = asyncio.get_running_loop()

    def accepted() -> Echo:
        made = make()
        site.protocols.put_nowait(made)
        return made

    server = await loop.create_server(lambda: Secured(loop, context, accepted, site.known), sock=listener)
    try:
        async with asyncio.timeout(PATIENCE):
            yield site
    finally:
        for each in tuple(site.known):
            each.abort()
        server.close()
        await server.wait_closed()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_much_goes_both_ways_at_the_pace_of_the_client(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    async with serving(tmp_path) as site:
        reader, writer, echo = await site.open()
        writer.write(data)
        writing = asyncio.create_task(writer.drain())
        assert await reader.readexactly(len(data)) == data
        await writing
        await _close(writer)
        await echo.over


async def test_the_end_of_a_client_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        _, writer, echo = await site.open()
        await _close(writer)
        await echo.over
        assert echo.ended and echo.transport.is_closing() and not site.known
        for late in (echo.transport.close, echo.transport.abort, echo.transport.flush, echo.transport.resume_reading):
            late()
        echo.transport.write(b"too late")
        echo.transport.send(b"too late")


async def test_a_close_sends_what_was_written_to_a_client_that_still_sends(tmp_path: Path) -> None:
    class Refusing(Echo):
        def data_received(self, data: bytes) -> None:
            self.transport.pause_reading()
            self.transport.write(b"too")
            self.transport.write(b" long")
            self.transport.close()

    async with serving(tmp_path, Refusing) as site:
        reader, writer, echo = await site.open()
        writer.write(bytes(4 << 20))
        assert await reader.read() == b"too long"
        await _close(writer)
        await echo.over


async def test_a_close_after_the_client_has_reset_the_connection_is_nothing_special(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as site:
        _, writer, echo = await site.open()

        def gone(_: object) -> None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

        # What the kernel says where a reset has come between the last write and this, which can't be timed from outside.
        monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.write_eof", gone)
        echo.transport.close()
        monkeypatch.undo()
        await _close(writer)
        await echo.over
        assert not site.known


async def test_a_client_that_doesn_t_close_its_side_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LINGER", 0.01)
    async with serving(tmp_path) as site:
        raw, secured = await _by_hand(site)
        echo = await site.protocols.get()
        echo.transport.write(b"last")
        echo.transport.close()
        await echo.over
        assert (await asyncio.get_running_loop().run_in_executor(None, secured.recv, 10)) == b"last"
        secured.close()
        raw.close()


async def _by_hand(site: Site) -> tuple[socket.socket, ssl.SSLSocket]:
    """A client that does nothing by itself."""
    loop = asyncio.get_running_loop()
    raw = socket.create_connection(site.address)
    context = site.pki.client_context()
    secured = await loop.run_in_executor(None, lambda: context.wrap_socket(raw, server_hostname="127.0.0.1"))
    return raw, secured


async def test_what_is_no_tls_is_refused_without_a_word_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as site:
        reader, writer = await asyncio.open_connection(*site.address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in await reader.read()
        await _close(writer)
        assert site.protocols.empty()
    assert caplog.records == []


async def test_a_handshake_has_a_time_to_end_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE", 0.01)
    async with serving(tmp_path) as site:
        reader, writer = await asyncio.open_connection(*site.address)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await _close(writer)
        assert site.protocols.empty()


async def test_garbage_after_the_handshake_ends_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        raw, secured = await _by_hand(site)
        echo = await site.protocols.get()
        os.write(secured.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that nobody enciphered
        await echo.over
        assert echo.seen == b""
        secured.close()
        raw.close()


async def test_who_has_paused_gets_nothing_until_he_resumes(tmp_path: Path) -> None:
    class Slow(Echo):
        def data_received(self, data: bytes) -> None:
            self.transport.pause_reading()
            self.seen += data
            got.put_nowait(data)

    got: asyncio.Queue[bytes] = asyncio.Queue()
    async with serving(tmp_path, Slow) as site:
        _, writer, echo = await site.open()
        for size in (1, 2):  # records of their own, which come together
            writer.write(b"x" * size)
        assert await got.get() == b"x" and not echo.transport.is_reading()
        for _ in range(5):
            await asyncio.sleep(0)
        assert echo.seen == b"x"
        echo.transport.resume_reading()
        assert await got.get() == b"xx"
        writer.transport.abort()
        echo.transport.resume_reading()
        await echo.over


async def test_writes_of_one_turn_are_one_record_and_what_is_sent_at_once_follows_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:

        class Seen(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                records.put_nowait(data)

        records: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Seen, *site.address, ssl=site.pki.client_context())
        echo = await site.protocols.get()
        echo.transport.write(b"head ")
        echo.transport.write(b"body")
        assert echo.transport.get_write_buffer_size() == 9
        assert await records.get() == b"head body"
        echo.transport.write(b"one ")
        echo.transport.send(b"two")
        assert echo.transport.get_write_buffer_size() == 0
        assert await records.get() == b"one two"
        transport.close()
        await echo.over


async def test_what_the_socket_doesn_t_take_waits_in_the_transport(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        reader, writer, echo = await site.open()
        piece = os.urandom(100_000)
        sent = 0
        while not echo.transport.get_write_buffer_size():
            echo.transport.send(piece)
            sent += 1
        echo.transport.send(b"the end")
        assert await reader.readexactly(sent * len(piece)) == piece * sent
        assert await reader.readexactly(7) == b"the end"
        await _close(writer)
        await echo.over
