"""A reply in slices, and what it must not load."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, sys
from gateway.jobs.replies import Streamed

closed = []

async def slices():
    try:
        yield b"one"
        yield b"two"
    finally:
        closed.append(True)

async def main():
    sent = []

    async def send(message):
        sent.append(message)

    await Streamed(slices(), {"Content-Length": "6"}, "application/gzip")({}, None, send)
    head, *bodies = sent
    assert (head["status"], dict(head["headers"])[b"content-length"]) == (200, b"6"), head
    assert [(each["body"], each["more_body"]) for each in bodies] == [(b"one", True), (b"two", True), (b"", False)]

    async def gone(message):
        if message.get("body"):
            raise OSError("the client has left")

    try:
        await Streamed(slices(), {}, "text/plain")({}, None, gone)
    except OSError:
        pass
    assert closed == [True, True], "the file is closed at once"

asyncio.run(main())
print(*(name for name in sys.modules if name.startswith("anyio._backends")))
"""


def test_slices_go_out_without_another_event_loop_being_loaded():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
