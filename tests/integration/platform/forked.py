"""`faas` without the start of Python: a process that has imported what commands import, and forks one for each command.

Half a second of CPU is what a command's imports take, and tests give commands by the hundred. All else is the same: a process of its own with the
arguments, the environment, the folder and the pipes that it was given, its output and its exit code. As a script this is that process:

    python -P forked.py SOCKET
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

MODULES = (
    "cli.root", "cli.context", "cli.gateway", "core.client.http", "core.client.rest", "core.client.informer", "faaslite.build.plan",
    "faaslite.launch.rotation", "faaslite.api.tenancy", "cryptography.x509", "yaml", "asyncio", "subprocess",
)  # fmt: skip


class Commands:
    """For use with `with`; `run` does what `subprocess.run(capture_output=True, text=True)` does for one command, from any thread."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._folder = tempfile.TemporaryDirectory(prefix="faas-forked-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Commands:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("FAASLITE_", "KUBE", "PYTHON"))
        }
        command = [sys.executable, "-P", __file__, self._path, self._program]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate(timeout=30)
        self._folder.cleanup()

    @property
    def _path(self) -> str:
        return f"{self._folder.name}/socket"

    def run(self, arguments: Sequence[str], env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Raises subprocess.TimeoutExpired, and has killed the command then."""
        deadline = time.monotonic() + timeout
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.connect(self._path)
            nothing = stack.enter_context(open(os.devnull, "rb"))
            pipes = [os.pipe(), os.pipe()]
            readers = [stack.enter_context(open(reader, "rb", buffering=0)) for reader, _ in pipes]
            request = json.dumps({"arguments": list(arguments), "env": dict(env), "cwd": os.getcwd()}).encode()
            try:
                socket.send_fds(
                    connection, [len(request).to_bytes(4, "big")], [nothing.fileno(), *(writer for _, writer in pipes)]
                )
            finally:
                for _, writer in pipes:
                    os.close(writer)
            connection.sendall(request)
            pid = int.from_bytes(_exactly(connection, 4), "big")
            out: dict[Any, bytearray] = {each: bytearray() for each in readers}
            selector = stack.enter_context(selectors.DefaultSelector())
            for each in readers:
                selector.register(each, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(max(deadline - time.monotonic(), 0.0)):
                    data = key.fileobj.read(65536)  # type: ignore[union-attr]
                    out[key.fileobj] += data
                    if not data:
                        selector.unregister(key.fileobj)
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(
                        [self._program, *arguments], timeout, *(bytes(each) for each in out.values())
                    )
            connection.settimeout(max(deadline - time.monotonic(), 1.0))
            code = connection.recv(4)  # nothing of one that was killed
        said = [bytes(each).decode().replace("\r\n", "\n") for each in out.values()]
        return subprocess.CompletedProcess(
            [self._program, *arguments], int.from_bytes(code, "big") if code else -9, *said
        )


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the process that forks commands has ended")
        data += more
    return data


def serve(path: str, program: str) -> None:
    """Until standard input ends."""
    import gc
    from importlib import import_module

    from cli.commands import COMMANDS

    for name in (*MODULES, *(f"cli.{module}" for _, module, _ in COMMANDS)):
        import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: they tell their exit codes themselves
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is listener for key, _ in selector.select()):
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    selector.close()
                    listener.close()
                    try:
                        _command(connection, program)
                    finally:
                        os._exit(1)


def _command(connection: socket.socket, program: str) -> None:
    """In the forked process: be that command, and end with it."""
    import atexit
    import threading
    import traceback

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code: Any = 1
    try:
        head, files, _, _ = socket.recv_fds(connection, 4, 3)
        for number, each in enumerate(files):
            os.dup2(each, number)
            os.close(each)
        request = json.loads(_exactly(connection, int.from_bytes(head, "big")))
        connection.sendall(os.getpid().to_bytes(4, "big"))
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.argv = [program, *request["arguments"]]
        from cli.main import main

        code = main()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does at its end
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    connection.sendall(int(code or 0).to_bytes(4, "big"))
    os._exit(int(code or 0))


if __name__ == "__main__":
    serve(*sys.argv[1:])
