"""Serve calls of a function that does nothing, once, before any process is forked to become a real one.

What the first calls of a process import, allocate and specialise (PEP 659) is then done, in memory that all forks share: they start
sooner, and each holds less of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from . import discovery
from .calls import Calls
from .handlers import offer_sdk, prepare
from .http import Connection
from .logs import install
from .reply import to_reply
from .server import announce, new_loop
from .settings import Settings

__all__ = ["rehearse", "take_environment", "touch"]

ROUNDS = 24
_VARIABLES = 24
"""About as many as a function's Pod has."""
_NAME = "faaslite_rehearsal"
_HANDLERS = ("handle", "wait")
_BODY = '    return {"hello": event.query.get("name", NAME)}\n'
_SOURCE = f'import json\n\nNAME = "rehearsal"\n\n\ndef handle(event, context):\n{_BODY}\n\nasync def wait(event, context):\n{_BODY}'
"""Called on a thread, and as a task."""
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
        handlers = [discovery.load(f"{_NAME}:{each}", settings.package) for each in _HANDLERS]
        for each in handlers:
            loop.run_until_complete(_serve(settings, each))
    finally:
        sys.modules.pop(_NAME, None)
        loop.close()
        asyncio.set_event_loop(None)


def touch(loop: asyncio.AbstractEventLoop, folder: str) -> None:
    """In a fork that is going to wait: all that a start does, with a function of our own, and one call of it on the fork's loop. The pages
    that a start reads and writes are then its own already, which takes half of the time off the start that counts.

    `folder` can be written and is empty again afterwards, and so is the environment.
    """
    kept, path = list(sys.path), os.path.join(folder, f"{_NAME}.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(_SOURCE)
    env = {"FAASLITE_HANDLER": f"{_NAME}:handle", "FAASLITE_PACKAGE": folder, "FAASLITE_TIMEOUT": "30"}
    take_environment(env | {f"FAASLITE_REHEARSAL_{number}": "a value" for number in range(_VARIABLES)})
    try:
        settings = Settings.read(os.environ)
        install()
        asyncio.set_event_loop(loop)
        discovery.take_path(settings.package, settings.layer)
        offer_sdk()
        handler = discovery.load(f"{_NAME}:{_HANDLERS[0]}", settings.package)
        loop.run_until_complete(_start(settings, handler))
    finally:
        os.environ.clear()
        sys.modules.pop(_NAME, None)
        sys.path[:] = kept
        sys.path_importer_cache.pop(folder, None)
        os.unlink(path)


def take_environment(env: Mapping[str, str]) -> None:
    """Put `env` into the process's environment, as `os.environ.update` does in twice the time."""
    environ = os.environb
    for name, value in env.items():
        environ[name.encode("utf-8", "surrogateescape")] = value.encode("utf-8", "surrogateescape")


async def _start(settings: Settings, handler: Any) -> None:
    """As `server.run` from the loaded handler on: the listener, the signals, the announcement, and then a call that comes by the network."""
    loop = asyncio.get_running_loop()
    prepared = prepare(settings, handler)
    calls = Calls(settings, prepared.call, None, prepared.describe)
    connections: set[Connection] = set()
    listener = socket.socket()
    listener.setblocking(False)
    listener.bind(("127.0.0.1", 0))
    server = await loop.create_server(lambda: Connection(calls, connections), sock=listener, backlog=1)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        loop.add_signal_handler(number, _ignore)
    reader, writer = os.pipe()
    announce({"FAASLITE_READY_FD": str(writer)})
    os.close(reader)
    calls.get_ready()
    with socket.socket() as client:
        client.connect(listener.getsockname())  # into its backlog, at once
        client.setblocking(False)
        await _ask(loop, client)
        calls.drain(_ignore)
        calls.close()
        server.close()
        for each in list(connections):
            each.close_idle()
        await loop.sock_recv(client, 1)  # the end of the connection
    await server.wait_closed()
    for number, was in before.items():
        loop.remove_signal_handler(number)
        signal.signal(number, was)  # the loop has its own idea of what SIGINT did


def _ignore() -> None:
    """What nobody waits for."""


async def _ask(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
    await loop.sock_sendall(client, _REQUEST)
    answer = await loop.sock_recv(client, 65536)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the rehearsal was answered {answer[:200]!r}")


async def _serve(settings: Settings, handler: Any) -> None:
    loop = asyncio.get_running_loop()
    calls = Calls(settings, handler)
    connections: set[Connection] = set()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: Connection(calls, connections), theirs)
        calls.get_ready()
        await _ask(loop, ours)
        calls.drain(lambda: None)
        calls.close()
        transport.close()
        await asyncio.sleep(0)  # connections are closed in the turn after
    finally:
        ours.close()
    announce({})
    to_reply("text")
