"""Attachments: who is slow holds the container up, but not for long."""

from __future__ import annotations

import asyncio
import os

import pytest

from core.node.runtime.sandboxer import streams
from core.node.runtime.sandboxer.streams import Attachment

PIPE = 1 << 16


@pytest.fixture
def pipes():
    """Readers and writers of `stdout` and `stderr`, the writers never blocking."""
    found = {name: os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for name in ("stdout", "stderr")}
    yield found
    for reader, _ in found.values():
        os.close(reader)


def attach(pipes, room: asyncio.Event) -> Attachment:
    return Attachment(asyncio.get_running_loop(), {name: each[1] for name, each in pipes.items()}, room.set)


async def test_what_is_said_goes_to_its_stream(pipes):
    found = attach(pipes, asyncio.Event())
    found.feed("stdout", b"out")
    found.feed("stderr", b"err")
    found.feed("nothing of it", b"x")
    assert (os.read(pipes["stdout"][0], 100), os.read(pipes["stderr"][0], 100)) == (b"out", b"err")
    assert not found.blocked
    found.finish()
    assert os.read(pipes["stdout"][0], 100) == b""


async def test_a_full_pipe_blocks_until_there_is_room(pipes):
    room = asyncio.Event()
    found = attach(pipes, room)
    wanted = os.urandom(PIPE + 50_000)
    found.feed("stdout", wanted)
    found.feed("stderr", b"later")
    assert found.blocked and not room.is_set()
    found.finish()  # the container has ended: the rest is still delivered
    seen = b""
    async with asyncio.timeout(5):
        while len(seen) < len(wanted):
            try:
                seen += os.read(pipes["stdout"][0], PIPE)
            except BlockingIOError:
                await asyncio.sleep(0)
        await room.wait()
    assert seen == wanted and os.read(pipes["stderr"][0], 100) == b"later"
    assert os.read(pipes["stdout"][0], 100) == b""  # closed
    assert not found.blocked


async def test_who_takes_nothing_is_dropped(pipes, monkeypatch):
    monkeypatch.setattr(streams, "PATIENCE", 0.05)
    room = asyncio.Event()
    found = attach(pipes, room)
    found.feed("stdout", bytes(2 * PIPE))
    async with asyncio.timeout(5):
        await room.wait()
    assert not found.blocked
    found.feed("stdout", b"into the void")
    found.close()
    assert len(os.read(pipes["stdout"][0], 2 * PIPE)) == PIPE
    assert os.read(pipes["stdout"][0], 1) == b""


async def test_who_has_gone_is_no_bother():
    room = asyncio.Event()
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    found = Attachment(asyncio.get_running_loop(), {"stdout": writer}, room.set)
    found.feed("stdout", bytes(2 * PIPE))
    os.close(reader)
    async with asyncio.timeout(5):
        await room.wait()
    assert not found.blocked
    found.close()
