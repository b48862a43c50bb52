"""The life of an instance: load the handler, listen, say that it is ready, serve, drain, exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from .calls import Calls
from .discovery import StartFailure, load, take_path
from .handlers import offer_sdk, prepare
from .http import Connection
from .logs import install
from .settings import Settings

__all__ = ["announce", "new_loop", "run"]

BACKLOG = 1024


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's event loop where there is uvloop."""
    uvloop = sys.modules.get("uvloop")
    return uvloop.new_event_loop() if uvloop is not None else asyncio.new_event_loop()


def run(env: Mapping[str, str], loop: asyncio.AbstractEventLoop | None = None) -> int:
    """Serve until told to stop: the exit code. A start that fails leaves its reason in the termination log."""
    settings = Settings.read(env)
    install()
    loop = loop or new_loop()
    asyncio.set_event_loop(loop)
    try:
        take_path(settings.package, settings.layer)
        offer_sdk()
        handler = load(settings.handler, settings.package)
        return loop.run_until_complete(_serve(settings, env, handler))
    except StartFailure as failure:
        _give_up(settings.termination_log, str(failure))
        return 1
    finally:
        loop.close()


async def _serve(settings: Settings, env: Mapping[str, str], handler: Any) -> int:
    loop = asyncio.get_running_loop()
    prepared = prepare(settings, handler)
    runner = prepared.runner
    if runner is not None:
        await runner.startup()
    calls = Calls(settings, prepared.call, runner.run if runner else None, prepared.describe)
    connections: set[Connection] = set()
    listener = _listener(settings, env)
    server = await loop.create_server(lambda: Connection(calls, connections), sock=listener, backlog=BACKLOG)
    done = asyncio.Event()

    def terminate() -> None:
        calls.drain(done.set)
        for each in list(connections):
            each.close_idle()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    loop.add_signal_handler(signal.SIGINT, terminate)
    announce(env)
    calls.get_ready()  # while the news is on its way
    await done.wait()
    server.close()
    if runner is not None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(runner.shutdown(), 10)
    return 0


def _listener(settings: Settings, env: Mapping[str, str]) -> socket.socket:
    if env.get("LISTEN_FDS") == "1":
        listener = socket.socket(fileno=3)
        listener.setblocking(False)
        return listener
    try:
        return socket.create_server(("0.0.0.0", settings.port), backlog=BACKLOG)  # noqa: S104 - a container's only address
    except OSError as error:
        raise StartFailure(f"can't listen on port {settings.port}: {error.strerror}") from error


def announce(env: Mapping[str, str]) -> None:
    """Say that requests will be handled, in each way that was given."""
    descriptor = env.get("FAASLITE_READY_FD", "")
    if descriptor.isdigit():
        with contextlib.suppress(OSError):  # nobody listens any more: then nobody needs to know
            os.write(int(descriptor), b"R")
            os.close(int(descriptor))
    address = env.get("NOTIFY_SOCKET", "")
    if address:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify,
            contextlib.suppress(OSError),
        ):
            notify.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)


def _give_up(path: str, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")[:4096]
    sys.stderr.write(f"{text}\n")
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        sys.stderr.write(f"the termination log {path} can't be written: {error.strerror}\n")
