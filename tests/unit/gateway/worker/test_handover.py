"""The worker's end of its connection with jobs, on the event loop that workers run on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import uvloop

from gateway.handover import Executed
from gateway.worker.handover import Handover


def test_what_ends_just_when_jobs_has_died_breaks_nothing(short_path: Path) -> None:
    path = short_path / "s"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
        connection, _ = await loop.create_unix_connection(asyncio.Protocol, str(path))
        handover = Handover(SimpleNamespace(loop=loop, activator=None), path)  # type: ignore[arg-type]
        handover._transport = connection
        connection.abort()  # as a write that finds jobs gone does; that it is lost is only said in a later turn
        assert handover._transport is connection and handover._open() is None
        handover._tell([Executed(1, 200)])
        handover._flush()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
