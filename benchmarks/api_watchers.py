"""Watchers in a process of their own: many connections that read one watch, and say how late each event was.

`python -m benchmarks.api_watchers URL TOKEN PATH COUNT`: prints `ready` when all are connected; when its standard input ends, the latencies of
what was read, in milliseconds, one JSON list. An event's object says in `data.at` when it was written (nanoseconds of the machine's monotonic clock).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
import time
from urllib.parse import urlsplit

import uvloop

_AT = re.compile(rb'"at":"(\d+)"')


class Watcher(asyncio.Protocol):
    def __init__(self, request: bytes, latencies: list[float], connected: asyncio.Future[None]) -> None:
        self._request, self._latencies, self._connected = request, latencies, connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._connected.done():
            self._connected.set_result(None)
        now = time.monotonic_ns()
        self._latencies += [(now - int(at)) / 1e6 for at in _AT.findall(data)]


async def watch(url: str, token: str, path: str, count: int) -> None:
    loop, where = asyncio.get_running_loop(), urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    latencies: list[float] = []
    request = f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    transports = []
    for _ in range(count):
        connected = loop.create_future()
        transport, _ = await loop.create_connection(
            lambda connected=connected: Watcher(request, latencies, connected), where.hostname, where.port, ssl=context
        )
        transports.append(transport)
        await connected
    print("ready", flush=True)
    over = loop.create_future()
    loop.add_reader(0, lambda: os.read(0, 1) or over.done() or over.set_result(None))
    await over
    for each in transports:
        each.abort()
    print(json.dumps(latencies), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(watch(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
