"""A process's streams on a Docker engine: its exec and attach calls, over connections that the engine hands to them (`Upgrade: tcp`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.node.runtime.base import RuntimeFailure, RuntimeUnavailable
from core.node.runtime.docker_stream import EngineStreams
from core.upgrade import PIECE, Upgraded, cut

__all__ = ["DockerStreams"]

_HEADER = struct.Struct(">BxxxL")
_DETACH_KEYS = "ctrl-@,ctrl-],ctrl-^,ctrl-_"
"""Nobody types them: the engine would keep ctrl-p, its default, from the process."""
_DELAYS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.0, 1.0)


class DockerStreams:
    """Implements `Streams`. `path` is that of the exec or the container in the engine's API."""

    def __init__(self, engine: EngineStreams, path: str, connection: Upgraded, *, stdin: bool, tty: bool) -> None:
        self._engine = engine
        self._path = path
        self._reader, self._writer = connection.reader, connection.writer
        self._stdin = stdin
        self._tty = tty
        self._left = 0
        self._stream = 1
        self._ended = self._closed = False

    @classmethod
    async def exec(
        cls,
        engine: EngineStreams,
        container: str,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: bool,
        tty: bool,
    ) -> DockerStreams:
        """`env` is put over the container's own. Raises `RuntimeFailure`."""
        variables = {**({"TERM": "xterm"} if tty else {}), **env}
        body = {
            "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True, "Tty": tty, "Cmd": list(command),
            "Env": [f"{name}={value}" for name, value in variables.items()], "DetachKeys": _DETACH_KEYS,
        }  # fmt: skip
        path = f"/exec/{(await engine.ask('POST', f'/containers/{container}/exec', body=body))['Id']}"
        connection = await engine.hijack(f"{path}/start", {}, {"Detach": False, "Tty": tty})
        return cls(engine, path, connection, stdin=stdin, tty=tty)

    @classmethod
    async def attach(cls, engine: EngineStreams, container: str, *, stdin: bool, tty: bool) -> DockerStreams:
        """Raises `RuntimeFailure`."""
        query = {"stream": "1", "stdout": "1", "stderr": "1", "detachKeys": _DETACH_KEYS, **({"stdin": "1"} if stdin else {})}  # fmt: skip
        path = f"/containers/{container}"
        connection = await engine.hijack(f"{path}/attach", query)
        return cls(engine, path, connection, stdin=stdin, tty=tty)

    async def read(self) -> tuple[int, bytes]:
        try:
            if self._tty:
                data = await self._reader.read(PIECE)
            else:
                while not self._left:  # the next frame: its stream and its length
                    header = await self._reader.readexactly(_HEADER.size)
                    self._stream, self._left = _HEADER.unpack(header)
                data = await self._reader.read(min(self._left, PIECE))
                self._left -= len(data)
        except asyncio.IncompleteReadError:
            data = b""
        except OSError as error:
            raise RuntimeUnavailable(f"the connection to the Docker engine broke: {error}") from error
        if not data:
            self._ended = True
            return 0, b""
        return self._stream, data

    async def write(self, data: bytes) -> None:
        if not self._stdin:
            return
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:  # it reads no more
            self._stdin = False

    async def end_input(self) -> None:
        if self._stdin and not self._tty:
            self._stdin = False
            with contextlib.suppress(OSError):
                self._writer.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        if self._tty:
            with contextlib.suppress(RuntimeFailure):  # it has just ended, or not begun
                await self._engine.ask("POST", f"{self._path}/resize", {"h": str(rows), "w": str(columns)})

    async def wait(self) -> int:
        if not self._path.startswith("/exec/"):
            return 0
        for delay in _DELAYS:  # the engine may learn of the end after the streams' end
            await asyncio.sleep(delay)
            said = await self._engine.ask("GET", f"{self._path}/json")
            if not said["Running"] and said["ExitCode"] is not None:
                return int(said["ExitCode"])
        raise RuntimeFailure("the command has closed its streams and runs on")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await cut(self._writer)
        if self._tty and not self._ended and self._path.startswith("/exec/"):
            with contextlib.suppress(RuntimeFailure, OSError):
                await self._hang_up()

    async def _hang_up(self) -> None:
        """The engine has no call for it: signal the process, where it is one of this machine and still the one that we mean."""
        pid, container = 0, ""
        for delay in _DELAYS:  # the engine notes a process's id after it has let it run
            await asyncio.sleep(delay)
            said = await self._engine.ask("GET", f"{self._path}/json")
            pid, container = int(said.get("Pid") or 0), str(said.get("ContainerID") or "")
            if pid or not said["Running"] or not self._engine.local:
                break
        if not pid or not container or not said["Running"] or not self._engine.local:
            return
        handle = os.pidfd_open(pid)
        try:
            cgroup = await asyncio.to_thread(Path(f"/proc/{pid}/cgroup").read_text)
            if container in cgroup:
                signal.pidfd_send_signal(handle, signal.SIGHUP)
        finally:
            os.close(handle)
