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
import types
from typing import Any

from . import discovery
from .calls import Calls
from .http import Connection
from .logs import install
from .reply import to_reply
from .server import announce, new_loop
from .settings import Settings

__all__ = ["rehearse", "touch"]

ROUNDS = 24
_NAME = "faaslite_rehearsal"
_SOURCE = 'import json\n\nNAME = "rehearsal"\n\n\nasync def handle(event, context):\n    return {"hello": event.query.get("name", NAME)}\n'
_REQUEST = (
    b"POST /path?name=a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Type: application/json\r\n"
    b"X-Call-Id: a\r\nX-Faaslite-Deadline: 99999999999.5\r\n\r\n{}"
)


def rehearse() -> None:
    """Returns with no thread, descriptor, module or loop left of it."""
    kept = list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, f"{_NAME}.py"), "w", encoding="utf-8") as file:
            file.write(_SOURCE)
        try:
            for _ in range(ROUNDS):
                _once(folder)
        finally:
            sys.path[:] = kept
            sys.path_importer_cache.pop(folder, None)


def _once(folder: str) -> None:
    """As `server.run`, but for the signals and the streams."""
    env = {"FAASLITE_HANDLER": f"{_NAME}:handle", "FAASLITE_PACKAGE": folder, "FAASLITE_TIMEOUT": "30"}
    settings = Settings.read(env)
    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        discovery.take_path(settings.package, settings.layer)
        handler = discovery.load(settings.handler, settings.package)
        loop.run_until_complete(_serve(settings, handler))
    finally:
        sys.modules.pop(_NAME, None)
        loop.close()
        asyncio.set_event_loop(None)


def touch(loop: asyncio.AbstractEventLoop) -> None:
    """In a fork that is going to wait: serve one call on its loop, so that the pages that a start writes to are its own already."""
    install()
    asyncio.set_event_loop(loop)
    module = types.ModuleType(_NAME)
    exec(compile(_SOURCE, "rehearsal.py", "exec"), module.__dict__)  # noqa: S102 - our own words
    kept, sys.modules[_NAME] = list(sys.path), module
    try:
        discovery.take_path("/", "")
        handler = discovery.load(f"{_NAME}:handle", "/")
        loop.run_until_complete(_serve(Settings.read({"FAASLITE_TIMEOUT": "30"}), handler))
    finally:
        del sys.modules[_NAME]
        sys.path[:] = kept


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
