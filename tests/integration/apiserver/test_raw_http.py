"""Whatever bytes come to the API's port: an answer below 500 or the end of the connection, and nothing stays behind.

`RAW_HTTP_EXAMPLES=5000 pytest tests/integration/apiserver/test_raw_http.py` tries more of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from core.apiserver.app import ApiServer
from core.serving import AsgiServer
from core.store.memory import MemoryStore
from tests.integration.apiserver.alone import Alone, leaves_nothing
from tests.integration.apiserver.flooding import USERS

CM = "/api/v1/namespaces/default/configmaps"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Running:
    """A server in a thread of its own, plain and over TLS."""

    def __init__(self, pki) -> None:
        self._pki = pki
        self.errors: list[str] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)

    async def _main(self) -> None:
        self.loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(str(context)))
        store = MemoryStore()
        api = ApiServer(store, tokens=USERS)
        await api.start()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._pki.certificate, self._pki.key)
        self.servers = []
        for each in (None, context):
            listener = socket.create_server(("127.0.0.1", 0), backlog=256)
            self.servers.append(AsgiServer(api, listener, each, drain=0.2, client_of=api.client_of))
            await self.servers[-1].start()
        self.plain, self.secured = (each._listener.getsockname()[1] for each in self.servers)
        self._ready.set()
        await self._over.wait()
        await api.stop()
        for each in self.servers:
            await each.stop()
        await store.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def held(self) -> tuple[int, int, int]:
        """Tasks, connections and descriptors, once what was closed is gone."""

        async def count() -> tuple[int, int, int]:
            async with asyncio.timeout(20):
                while any(each._guards.total or each._guards.tasks for each in self.servers):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            gc.collect()
            return (
                len(asyncio.all_tasks()),
                sum(each._guards.total for each in self.servers),
                len(os.listdir("/proc/self/fd")),
            )

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(30)


@pytest.fixture
def running(pki, caplog) -> Iterator[Running]:
    made = Running(pki)
    made.start()
    with caplog.at_level(logging.WARNING):
        yield made
    made.stop()
    assert made.errors == [] and [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


def _send(port: int, pieces: list[bytes], half_close: bool) -> bytes:
    """What is answered; the connection is closed after the last answer, or when nothing comes for a moment."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        found = b""
        with contextlib.suppress(OSError):
            for each in pieces:
                connection.sendall(each)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.03)
            while more := connection.recv(65536):
                found += more
        return found


_TOKEN = st.sampled_from(
    ["Authorization: Bearer admin-token", "Authorization: Bearer wrong", "Authorization: Basic eDp5", ""]
)
_METHOD = st.sampled_from(
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "G\x00T", "", "X" * 300]
)
_PATH = st.one_of(
    st.sampled_from([CM, f"{CM}/a", "/", "*", "/healthz", "/version", f"{CM}?watch=1&timeoutSeconds=0", "//", "/api/v1/%2e%2e/%00", "http://x/y", "/%ff%fe", "/?%", "/api/v1/namespaces//pods", "/openapi/v3/api/v1"]),
    st.text(max_size=30).map(lambda text: "/" + text),
)  # fmt: skip
_VERSION = st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1 HTTP/1.1"])
_HEADER = st.one_of(
    st.sampled_from([
        "Host: x", "Content-Length: 5", "Content-Length: 99999999999999999999", "Content-Length: -1", "Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity", "Connection: close", "Connection: Upgrade\r\nUpgrade: websocket", "Upgrade: h2c", "Expect: 100-continue",
        "Content-Type: application/json", "Content-Type: application/yaml", "Content-Type: application/vnd.kubernetes.protobuf", "Accept: \xff\xfe", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io",
        "Impersonate-User: x", "Impersonate-Group: y", " folded: x", "no colon", "a" * 9000 + ": b", "a: \x00", "Accept-Encoding: gzip", "Origin: x", "Content-Encoding: gzip",
    ]),
    st.tuples(st.text(max_size=10), st.text(max_size=20)).map(": ".join),
)  # fmt: skip
_BODY = st.one_of(
    st.sampled_from([b"", b"{}", b"hello", b'{"metadata":{"name":"a"}}', b"k8s\x00\xff\xff", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"-5\r\nhello\r\n", b"ffffffffffffffff\r\nx", b"0\r\nTrailer: x\r\n\r\n", b"[" * 500, b"\xff" * 100, b"a: &a [*a]", b"\n\r" * 20]),
    st.binary(max_size=60),
)  # fmt: skip


@st.composite
def _requests(draw) -> bytes:
    line = " ".join((draw(_METHOD), draw(_PATH), draw(_VERSION)))
    headers = [each for each in (draw(_TOKEN), *draw(st.lists(_HEADER, max_size=5))) if each]
    head = "\r\n".join((line, *headers)) + draw(st.sampled_from(["\r\n\r\n", "\n\n", "\r\n", "\r\r\n\n", ""]))
    return head.encode("utf-8", "surrogatepass") + draw(_BODY)


_STREAM = st.lists(st.one_of(_requests(), _requests(), st.binary(max_size=80)), min_size=1, max_size=6)
_CUTS = st.lists(st.integers(1, 200), max_size=4)
_FUZZING = settings(
    max_examples=int(os.environ.get("RAW_HTTP_EXAMPLES", "200")), deadline=None, derandomize=True, database=None,
    phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
)  # fmt: skip


def _cut(stream: list[bytes], cuts: list[int]) -> list[bytes]:
    data, pieces, at = b"".join(stream), [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    return [*pieces, data[at:]]


def test_any_bytes(running: Running) -> None:
    _send(running.plain, [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], False)
    before = running.held()

    @_FUZZING
    @given(_STREAM, st.booleans(), _CUTS)
    @example([b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 50], True, [1, 7, 30])
    @example([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], False, [])
    def fuzz(stream: list[bytes], half_close: bool, cuts: list[int]) -> None:
        answered = _send(running.plain, _cut(stream, cuts), half_close)
        statuses = [int(each) for each in _STATUS.findall(answered)]
        # A watch of zero seconds and `exec` without a Pod are answered, too; 501 and 505 would be the parser's own.
        assert all(each < 500 for each in statuses), (stream, answered[:500])

    fuzz()
    after = running.held()
    assert after[0] == before[0] and after[1] == 0 and after[2] <= before[2] + 1
    assert _send(running.plain, [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], False).endswith(b"ok")


async def _talk(port: int, secured: ssl.SSLContext | None, pieces: list[bytes], half_close: bool) -> None:
    """As `_send`, and nobody looks at what is answered."""
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=secured)
        try:
            for each in pieces:
                writer.write(each)
                await writer.drain()
            if half_close and secured is None:
                writer.write_eof()
            async with asyncio.timeout(0.1):
                while await reader.read(65536):
                    pass
        finally:
            writer.transport.abort()


@pytest.mark.timeout(240)
def test_memory_and_descriptors_do_not_grow(pki) -> None:
    connections: list[tuple[list[bytes], bool]] = []

    @_FUZZING
    @given(_STREAM, st.booleans(), _CUTS)
    def draw(stream: list[bytes], half_close: bool, cuts: list[int]) -> None:
        connections.append((_cut(stream, cuts), half_close))

    draw()
    context = ssl.create_default_context(cafile=str(pki.authority))

    async def batch(server: Alone) -> None:
        crowd = asyncio.Semaphore(16)

        async def one(port: int, secured: ssl.SSLContext | None, pieces: list[bytes], half_close: bool) -> None:
            async with crowd:
                await _talk(port, secured, pieces, half_close)

        async with asyncio.TaskGroup() as group:
            for number, (pieces, half_close) in enumerate(connections):
                group.create_task(one(server.plain, None, pieces, half_close))
                if number % 4 == 0:  # within TLS, and in its place
                    group.create_task(one(server.secured, context, pieces, half_close))
                    group.create_task(one(server.secured, None, pieces, half_close))

    leaves_nothing(pki, lambda server: asyncio.run(batch(server)), len(connections))


def test_what_is_no_tls(running: Running, pki) -> None:
    before = running.held()
    hello = bytes.fromhex("16030100") + b"\x70\x01\x00\x00\x6c\x03\x03" + bytes(range(200))
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 500,
        hello,
        hello[:9],
        b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
        b"\x15\x03\x03\x00\x02\x02\x00",
        b"",
    ):
        for half_close in (True, False):
            assert b"HTTP/1.1" not in _send(running.secured, [data], half_close)
    context = ssl.create_default_context(cafile=str(pki.authority))
    # Closed without a word in the middle of a request, and garbage within the stream.
    for data in (b"POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\nabc", b"GET /healthz HT"):
        with (
            socket.create_connection(("127.0.0.1", running.secured), 10) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
        ):
            secured.sendall(data)
    with (
        socket.create_connection(("127.0.0.1", running.secured), 10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert secured.recv(65536).startswith(b"HTTP/1.1 200")
        raw_descriptor = socket.socket(fileno=os.dup(secured.fileno()))
        raw_descriptor.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        raw_descriptor.close()
    after = running.held()
    assert after[0] == before[0] and after[1] == 0 and after[2] <= before[2] + 1
