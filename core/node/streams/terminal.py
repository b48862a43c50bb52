"""A command or an attachment: copies between the client's channels and the process's streams until one of them ends."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from core.node.runtime.base import RuntimeFailure, Streams
from core.node.streams.channels import (
    CLOSE,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    exit_status,
    failure_status,
    terminal_size,
)

__all__ = ["Wants", "converse"]

log = logging.getLogger(__name__)


class Wants(NamedTuple):
    """Which streams the client asked for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def read(cls, query: dict[str, str]) -> Wants:
        """From the kubelet's query. Raises ValueError where nothing is wanted; a terminal has no stream of errors of its own."""
        stdin, stdout, stderr, tty = (query.get(each) in ("1", "true") for each in ("input", "output", "error", "tty"))
        if not (stdin or stdout or stderr):
            raise ValueError("you must specify at least 1 of stdin, stdout, stderr")
        return cls(stdin, stdout, stderr and not tty, tty)


async def _outputs(channels: Channels, streams: Streams, wants: Wants) -> bytes:
    """The final status, once everything was said."""
    shown = {STDOUT: wants.stdout, STDERR: wants.stderr}
    try:
        while True:
            channel, data = await streams.read()
            if not data:
                return exit_status(await streams.wait())
            if shown.get(channel):
                await channels.send(channel, data)
    except RuntimeFailure as error:
        return failure_status(f"error executing command in container: {error}")


async def _inputs(channels: Channels, streams: Streams, wants: Wants) -> None:
    """Until the client goes."""
    while (found := await channels.receive()) is not None:
        channel, data = found
        if channel == STDIN and wants.stdin:
            await streams.write(data)
        elif channel == CLOSE and data[:1] == bytes((STDIN,)) and wants.stdin:
            await streams.end_input()
        elif channel == RESIZE and (size := terminal_size(data)) is not None:
            await streams.resize(*size)


async def converse(channels: Channels, streams: Streams, wants: Wants) -> None:
    """Returns when the process has ended and the client knows, or when the client has gone; both are closed then."""
    try:
        status = await _until_one_ends(channels, streams, wants)
        if status is not None:
            await channels.finish(status)
    except OSError as error:
        log.debug("the client went: %s", error)
    finally:
        await channels.close()


async def _until_one_ends(channels: Channels, streams: Streams, wants: Wants) -> bytes | None:
    """The final status; None where the client has gone. The process's streams are closed then."""
    outputs = asyncio.ensure_future(_outputs(channels, streams, wants))
    inputs = asyncio.ensure_future(_inputs(channels, streams, wants))
    try:
        await asyncio.wait((outputs, inputs), return_when=asyncio.FIRST_COMPLETED)
        if outputs.done():
            return outputs.result()
        failed = inputs.exception()
        return failure_status(str(failed)) if isinstance(failed, RuntimeFailure) else None
    finally:
        for each in (outputs, inputs):
            each.cancel()
        for result in await asyncio.gather(outputs, inputs, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, OSError | RuntimeFailure):
                log.error("a stream failed", exc_info=result)
        await streams.close()
