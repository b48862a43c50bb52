"""A server that stops ends what streams without calling it a fault."""

import asyncio
import contextlib
import logging
import socket

from core.serving import AsgiServer, chunks_of, framed, take_over
from core.tls import Secured
from faaslite.launch.pki import Pki


async def test_a_stream_that_never_ends_is_cut_without_a_word(caplog):
    begun = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        begun.set()
        await asyncio.Event().wait()

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = AsgiServer(app, listener, drain=0.05)
    await server.start()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        await begun.wait()
        with caplog.at_level(logging.INFO):
            await server.stop()
        try:
            seen = await reader.read()
        except ConnectionResetError:
            seen = b""
    assert b"0\r\n\r\n" not in seen  # cut, not finished
    writer.close()
    assert caplog.records == []


async def test_what_ends_in_time_is_let_end():
    async def app(scope, receive, send):
        await asyncio.sleep(0.1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = AsgiServer(app, listener)
    await server.start()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.02)
    stopping = asyncio.create_task(server.stop())
    async with asyncio.timeout(5):
        assert (await reader.read()).endswith(b"done")
        await stopping
    writer.close()


async def test_head_and_body_leave_together():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"body"})

    pieces, over = [], asyncio.Event()

    class Client(asyncio.Protocol):
        def data_received(self, data):
            pieces.append(data)

        def connection_lost(self, error):
            over.set()

    server = AsgiServer(app, listener := socket.create_server(("127.0.0.1", 0)))
    await server.start()
    transport, _ = await asyncio.get_running_loop().create_connection(Client, *listener.getsockname())
    transport.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(5):
        await over.wait()  # nothing is lost where the server closes right after it wrote
    assert len(pieces) == 1 and pieces[0].startswith(b"HTTP/1.1 200") and pieces[0].endswith(b"body")
    await server.stop()


async def test_a_reply_over_tls_is_one_record_and_leaves_with_its_end_not_in_the_next_turn(tmp_path, monkeypatch):
    sent, seen = [], asyncio.get_running_loop().create_future()
    pass_on = Secured._pass_on

    def counted(self):
        sent.append(self._outgoing.pending)
        pass_on(self)

    async def app(scope, receive, send):
        monkeypatch.setattr(Secured, "_pass_on", counted)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        assert sent == []
        await send({"type": "http.response.body", "body": b"dy"})
        seen.set_result(len(sent))

    (tmp_path / "pki").mkdir(mode=0o700)
    pki = Pki(tmp_path / "pki")
    pki.prepare(["127.0.0.1"], [])
    server = AsgiServer(app, listener := socket.create_server(("127.0.0.1", 0)), pki.server_context("apiserver"))
    await server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname(), ssl=pki.client_context())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        assert await seen == 1
        assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200")
    writer.close()
    await server.stop()


async def test_a_server_that_stops_ends_handshakes_that_don_t_end(tmp_path, monkeypatch):
    come, made = asyncio.Event(), Secured.connection_made
    monkeypatch.setattr(Secured, "connection_made", lambda self, transport: (made(self, transport), come.set()))
    (tmp_path / "pki").mkdir(mode=0o700)
    pki = Pki(tmp_path / "pki")
    pki.prepare(["127.0.0.1"], [])
    server = AsgiServer(_nothing, listener := socket.create_server(("127.0.0.1", 0)), pki.server_context("apiserver"))
    await server.start()
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        await come.wait()
        await server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


async def _nothing(scope, receive, send):
    raise AssertionError("nobody asked")


async def upgrading(scope, receive, send):
    """Upper case for who asks for it, a refusal for the rest."""
    take = take_over(scope)
    if take is None or scope["path"] == "/refuse":
        await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"no"})
        return
    reader, writer = take()
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: upper\r\n\r\n")
    try:
        while data := await reader.read(100):
            writer.write(data.upper())
            await writer.drain()
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def connected(app):
    listener = socket.create_server(("127.0.0.1", 0))
    server = AsgiServer(app, listener, drain=0.2)
    await server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        async with asyncio.timeout(10):
            yield reader, writer, server
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        await server.stop()


UPGRADE = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: upper\r\n%b\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: upper\r\n\r\n"


async def test_a_connection_is_given_away_with_what_came_after_the_request(caplog):
    async with connected(upgrading) as (reader, writer, _):
        writer.write(UPGRADE % (b"/", b"") + b"early ")
        assert await reader.readexactly(len(AGREED) + 6) == AGREED + b"EARLY "
        writer.write(b"x" * 500_000)
        assert await reader.readexactly(500_000) == b"X" * 500_000
        writer.write_eof()
        assert await reader.read() == b""
    assert caplog.records == []


async def test_after_a_refusal_http_goes_on(caplog):
    async with connected(upgrading) as (reader, writer, _):
        for _ in range(2):
            writer.write(UPGRADE % (b"/refuse", b"") + UPGRADE % (b"/refuse", b""))
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 400") and await reader.readexactly(2) == b"no"
        writer.write(UPGRADE % (b"/", b"") + b"now")
        assert await reader.readexactly(len(AGREED) + 3) == AGREED + b"NOW"
    assert caplog.records == []


async def test_a_request_with_a_body_keeps_its_connection():
    async with connected(upgrading) as (reader, writer, _):
        writer.write(UPGRADE % (b"/", b"Content-Length: 4\r\n") + b"body")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_server_that_stops_ends_what_was_given_away(caplog):
    async with connected(upgrading) as (reader, writer, server):
        writer.write(UPGRADE % (b"/", b""))
        await reader.readexactly(len(AGREED))
        await server.stop()
    assert caplog.records == []


async def test_chunks_are_written_past_asgi_in_their_place():
    held = {}

    async def app(scope, receive, send):
        chunks = held["chunks"] = chunks_of(scope)
        held["before"] = chunks.ready()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        held["begun"] = chunks.ready()
        chunks.write(framed(b"two"))
        await send({"type": "http.response.body", "body": b"three", "more_body": True})
        chunks.write(framed(b"four"))
        await send({"type": "http.response.body", "body": b""})
        held["after"] = chunks.ready()

    async with connected(app) as (reader, writer, _):
        for _ in range(2):  # the connection goes on with the next request
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
            body = await reader.readuntil(b"0\r\n\r\n")
            assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n4\r\nfour\r\n0\r\n\r\n"
            assert (held["before"], held["begun"], held["after"]) == (False, True, False)


async def test_a_client_that_takes_nothing_isnt_ready_for_chunks():
    held, full = {}, asyncio.Event()

    async def app(scope, receive, send):
        chunks = held["chunks"] = chunks_of(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while chunks.ready():
            chunks.write(framed(b"x" * 100_000))
        full.set()
        await send({"type": "http.response.body", "body": b"last", "more_body": True})
        held["again"] = chunks.ready()
        await send({"type": "http.response.body", "body": b""})

    async with connected(app) as (reader, writer, _):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await full.wait()
        assert not held["chunks"].ready()
        read = b""
        while not read.endswith(b"last\r\n0\r\n\r\n"):
            read = read[-20:] + await reader.read(1 << 20)
        assert held["again"]
