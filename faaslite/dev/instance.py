"""One instance of a function: the runtime's shim in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from faaslite.build.errors import BuildError
from faaslite.launch.assets import runtime_images

__all__ = ["Instance", "shim_command"]

START_SECONDS = 60.0
STOP_SECONDS = 5.0
_LAUNCHER = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execvp(sys.argv[2], sys.argv[2:])"
"""Descriptor 3 is where a shim finds its listening socket."""


def shim_command(runtime: str) -> tuple[list[str], dict[str, str]]:
    """The command of a runtime's shim and what it wants in its environment. Raises BuildError where this machine has no such runtime."""
    language = runtime.rstrip("0123456789.")
    version = runtime.removeprefix(language)
    images = runtime_images()
    if language == "python":
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        if version not in ("", own):
            raise BuildError(
                f"runtime {runtime}: this machine's faaslite runs on Python {own}; only a cluster's node may have another"
            )
        spec = importlib.util.find_spec("httptools")
        assert spec is not None and spec.origin is not None
        libraries = str(Path(spec.origin).parent.parent)
        environment = {
            "PYTHONPATH": str(images / "python"),
            "FAASLITE_SHIM_LIBRARIES": libraries,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return [sys.executable, "-P", "-S", "-X", "utf8", "-m", "faaslite_shim"], environment
    if language == "node":
        node = shutil.which("node")
        if node is None:
            raise BuildError("runtime node: there is no node on this machine's PATH; install Node.js")
        return [node, str(images / "node" / "shim" / "main.mjs")], {}
    raise BuildError(f"runtime {runtime} can't be run without a cluster; run the container by itself")


class Instance:
    """`on_line` is given each line that it writes. Paths of package and layer are folders, "" for no layer."""

    def __init__(self, name: str, runtime: str, environment: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        self.name = name
        self.url = ""
        self._runtime = runtime
        self._given = dict(environment)
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._folder = ""

    def again(self) -> Instance:
        """Another one of the same."""
        return Instance(self.name, self._runtime, self._given, self._on_line)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Returns when it is ready. Raises BuildError with what the shim says of a start that failed."""
        command, extra = shim_command(self._runtime)
        self._folder = tempfile.mkdtemp(prefix="faaslite-dev-")
        message = Path(self._folder, "message")
        reader, writer = os.pipe()
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            environment = {
                "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": self._folder, "TMPDIR": self._folder,
                **self._given, **extra, "LISTEN_FDS": "1", "FAASLITE_READY_FD": str(writer), "FAASLITE_TERMINATION_LOG": str(message),
            }  # fmt: skip
            launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(listener.fileno())]
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *launcher, *command, env=environment, cwd=self._given["FAASLITE_PACKAGE"], pass_fds=(listener.fileno(), writer),
                    stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                    limit=1 << 20, start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(writer)
        self._reading = asyncio.create_task(self._read())
        try:
            ready = await asyncio.wait_for(_first_byte(reader), START_SECONDS)
        except TimeoutError:
            await self.stop()
            raise BuildError(f"{self.name} is not ready after {START_SECONDS:.0f} s") from None
        if not ready:
            code = await self._process.wait()
            said = _text(message)
            await self.stop()
            raise BuildError(f"{self.name}: {said or f'it ended with exit code {code} before it was ready'}")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than the limit
                line = await self._process.stdout.read(1 << 20)
            if not line:
                return
            self._on_line(line.decode(errors="replace").rstrip("\n"))

    async def stop(self) -> None:
        """TERM, and KILL for it and all that it started once its time is over."""
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), STOP_SECONDS)
                except TimeoutError:
                    process.kill()
        except ProcessLookupError:
            pass  # it has just ended by itself
        _kill_group(process.pid)
        await process.wait()
        if self._reading is not None:
            await self._reading
        shutil.rmtree(self._folder, ignore_errors=True)
        self._process = None


def _text(message: Path) -> str:
    return message.read_text(errors="replace").strip() if message.exists() else ""


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def _first_byte(reader: int) -> bytes:
    """What is written to a pipe first, b"" where its other end was closed."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bytes] = loop.create_future()

    def readable() -> None:
        if not found.done():
            found.set_result(os.read(reader, 1))

    loop.add_reader(reader, readable)
    try:
        return await found
    finally:
        loop.remove_reader(reader)
        os.close(reader)
