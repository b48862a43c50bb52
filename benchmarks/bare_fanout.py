"""What TLS over asyncio alone takes to write one record to many connections: the floor beneath the API server's fan-out.

`python -m benchmarks.bare_fanout FOLDER SECONDS`: prints its URL; answers whatever comes first on a connection with a record; on a line of standard
input writes a new record to all connections ten times a second, and prints `done`. Ends when its standard input does. The records are as long as a
watch event of `benchmarks.api`'s fan-out, and say in `at` when they were written.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from faaslite.launch.pki import Pki

LENGTH = 440


def record() -> bytes:
    return (b'{"at":"%d"}' % time.monotonic_ns()).ljust(LENGTH - 1) + b"\n"


class Connection(asyncio.Protocol):
    def __init__(self, connections: list[asyncio.Transport]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.append(self._transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(record())

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.remove(self._transport)


async def serve(folder: Path, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    (folder / "pki").mkdir(mode=0o700)
    pki = Pki(folder / "pki")
    pki.prepare(["127.0.0.1"], [])
    connections: list[asyncio.Transport] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = await loop.create_server(
        lambda: Connection(connections), sock=listener, ssl=pki.server_context("apiserver")
    )
    print(f"https://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    told: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(0, lambda: told.put_nowait(os.read(0, 1)))
    while await told.get():
        for _ in range(round(seconds * 10)):
            written = record()
            for each in connections:
                each.write(written)
            await asyncio.sleep(0.1)
        print("done", flush=True)
    loop.remove_reader(0)
    for each in tuple(connections):
        each.abort()
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
