"""A server that stops ends what streams without calling it a fault."""

import asyncio
import logging
import socket

from core.serving import AsgiServer


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
