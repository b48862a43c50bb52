"""Serve calls of a function that does nothing, once, before any process is forked to become a real one.

What the first calls of a process import, allocate and specialise (PEP 659) is then done, in memory that all forks share: they start
sooner, and each holds less of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from typing import Any

from . import discovery
from .calls import Calls
from .http import Connection
from .reply import to_reply
from .server import announce, new_loop
from .settings import Settings

__all__ = ["rehearse"]

ROUNDS = 24
_SOURCE = 'import json\n\nNAME = "rehearsal"\n\n\nasync def handle(event, context):\n    return {"hello": event.query.get("name", NAME)}\n'
_REQUEST = (
    b"POST /path?name=a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: application/json\r\n"
    b"X-Call-Id: a\r\nX-Faaslite-Deadline: 99999999999.5\r\n\r\n{}"
)


def rehearse() -> None:
    """Returns with no thread, descriptor, module or loop left of it."""
    kept = list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "faaslite_rehearsal.py"), "w", encoding="utf-8") as file:
            file.write(_SOURCE)
        try:
            for _ in range(ROUNDS):
                _once(folder)
        finally:
            sys.path[:] = kept
            sys.path_importer_cache.pop(folder, None)


def _once(folder: str) -> None:
    """As `server.run`, but for the signals and the streams."""
    env = {"FAASLITE_HANDLER": "faaslite_rehearsal:handle", "FAASLITE_PACKAGE": folder, "FAASLITE_TIMEOUT": "30"}
    settings = Settings.read(env)
    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        discovery.take_path(settings.package, settings.layer)
        handler = discovery.load(settings.handler, settings.package)
        loop.run_until_complete(_serve(settings, handler))
    finally:
        sys.modules.pop("faaslite_rehearsal", None)
        loop.close()
        asyncio.set_event_loop(None)


async def _serve(settings: Settings, handler: Any) -> None:
    loop = asyncio.get_running_loop()
    calls = Calls(settings, handler)
    connections: set[Connection] = set()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: Connection(calls, connections), theirs)
        await loop.sock_sendall(ours, _REQUEST)
        answer = await loop.sock_recv(ours, 65536)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the rehearsal was answered {answer[:200]!r}")
        calls.drain(lambda: None)
        transport.close()
        await asyncio.sleep(0)  # connections are closed in the turn after
    finally:
        ours.close()
    announce({})
    to_reply("text")
