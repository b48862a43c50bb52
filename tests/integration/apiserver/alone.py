"""An API server in a process of its own, so that its memory can be looked at: `Alone` starts it, `held` asks what it holds.

`python -m tests.integration.apiserver.alone CERTIFICATE KEY` prints its two ports, plain and over TLS; each line that it reads is answered with one of
JSON, and it ends when there are no more.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from core.apiserver.app import ApiServer
from core.serving import AsgiServer
from core.store.memory import MemoryStore
from tests.integration.apiserver.flooding import USERS

__all__ = ["Alone", "Held", "leaves_nothing"]

ROOT = Path(__file__).parents[3]
RESIDENT = 1 << 20
"""Bytes by which a batch may make the process grow: how its memory is cut is not the same each time."""


class Held(NamedTuple):
    """`blocks` of memory are those that Python has given out: they count what is kept, however the memory is cut. `stored` are objects,
    `errors` were logged, or not handled."""

    tasks: int
    descriptors: int
    stored: int
    blocks: int
    resident: int
    errors: list[str]


class Alone:
    def __init__(self, pki) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.apiserver.alone", str(pki.certificate), str(pki.key)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.plain, self.secured = map(int, self._answer().split())

    def _answer(self) -> str:
        found = self._process.stdout.readline()
        assert found, "the server has ended"
        return found

    def held(self) -> Held:
        """Once every connection is gone, with what there is to forget forgotten."""
        self._process.stdin.write("held\n")
        self._process.stdin.flush()
        return Held(*json.loads(self._answer()))

    def stop(self) -> None:
        self._process.stdin.close()
        try:
            assert self._process.wait(60) == 0
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


def leaves_nothing(pki, batch: Callable[[Alone], object], size: int) -> None:
    """`batch`, of `size` requests or connections, is run twice to fill what is filled once, and then again: the last one may leave less than a
    block of memory for each of them (an object of Python is one or two), no task and no descriptor.

    What is held isn't the same to the block each time. A leak shows in every batch, so one that leaves nothing is enough, of four.
    """
    server = Alone(pki)
    try:
        batch(server)
        batch(server)
        found = [server.held()]
        while len(found) < 5:
            batch(server)
            found.append(server.held())
            if _bounded(*found[-2:], size):
                break
    finally:
        server.stop()
    assert not any(each.errors for each in found), found
    assert _bounded(*found[-2:], size), found


def _bounded(before: Held, after: Held, size: int) -> bool:
    made = after.stored - before.stored
    return (
        (after.tasks, after.descriptors) == (before.tasks, before.descriptors)
        and after.blocks - before.blocks < size + 200 * made
        and after.resident - before.resident < RESIDENT + (made << 14)
    )


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage()[:500])


async def _serve(certificate: str, key: str) -> None:
    errors, loop = _Errors(), asyncio.get_running_loop()
    logging.getLogger().addHandler(errors)
    loop.set_exception_handler(lambda _, context: errors.found.append(str(context)[:500]))
    store = MemoryStore()
    api = ApiServer(store, tokens=USERS)
    await api.start()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    servers = []
    for each in (None, context):
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        servers.append(AsgiServer(api, listener, each, drain=0.2, client_of=api.client_of))
        await servers[-1].start()
    print(*(each._listener.getsockname()[1] for each in servers), flush=True)
    own = psutil.Process()
    trim = ctypes.CDLL(None).malloc_trim

    async def held() -> Held:
        async with asyncio.timeout(60):
            while any(each._guards.total or each._guards.tasks for each in servers):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await store.compact(
            store.revision
        )  # the log of writes that watches can begin at grows up to a bound of its own
        for _ in range(2):
            gc.collect()
        trim(0)
        stored, tasks = len((await store.list("/")).entries), len(asyncio.all_tasks())
        return Held(tasks, own.num_fds(), stored, sys.getallocatedblocks(), own.memory_info().rss, errors.found)

    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", 0))
    while await reader.readline():
        print(json.dumps(await held()), flush=True)
    transport.close()
    await api.stop()
    for each in servers:
        await each.stop()
    await store.close()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
