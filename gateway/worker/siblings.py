"""The other workers of this gateway, each on a Unix socket in one folder: `/metrics` of any of them is the sum of all.

The socket speaks the gateway's HTTP, for the platform's own processes alone (the folder is private to their user): calls that come by it were
allowed by who sends them, and `/metrics` there is that worker's alone.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from core.sockets import bind_private

__all__ = ["PATIENCE", "PATTERN", "freed", "listen", "scrape"]

PATTERN = "gateway-*.sock"
_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
PATIENCE = 1.0
"""Seconds for a worker that may be busy, or be dying."""


def listen(path: Path) -> socket.socket:
    """A listener that only its owner may connect to, in place of what a dead worker left. Raises OSError."""
    listener = bind_private(path)
    listener.listen(128)
    return listener


async def scrape(own: Path) -> list[str]:
    """What every other worker beside `own` counts, in the text format. One that doesn't answer in time is left out."""
    others = [each for each in sorted(own.parent.glob(PATTERN)) if each != own]
    found = await asyncio.gather(*(_ask(each) for each in others))
    return [each for each in found if each is not None]


async def freed(own: Path, instance: str) -> bool:
    """Whether a worker beside `own` has said that a call of its own to `instance` (`namespace/name`) has ended. Returns with the first that
    says so, or False when none can say it or all have lost patience."""
    others = [each for each in sorted(own.parent.glob(PATTERN)) if each != own]
    request = f"GET /_/freed?{instance} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode()
    asking = [asyncio.create_task(_ask(each, request)) for each in others]
    try:
        for each in asyncio.as_completed(asking):
            if await each is not None:
                return True
        return False
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _ask(path: Path, request: bytes = _REQUEST) -> str | None:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request)
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    except (OSError, TimeoutError):
        return None
    finally:
        if writer is not None:
            writer.transport.abort()
    return body.decode() if head.startswith(b"HTTP/1.1 200 ") else None
