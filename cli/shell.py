"""`faas exec`: a command, or a shell, in an instance of a function."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import connect
from cli.errors import CallFailed, NotThere
from cli.options import Namespace

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["register"]

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PIECE = 32 << 10


def register(app: typer.Typer) -> None:
    app.command(name="exec")(execute)


def execute(
    name: str,
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run, after `--`.", show_default="a shell")
    ] = None,
    instance: Annotated[
        str, typer.Option(help="The instance (Pod) to run it in.", show_default="one that is ready")
    ] = "",
    stdin: Annotated[bool, typer.Option("-i", "--stdin", help="Pass standard input on.")] = False,
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Give it a terminal.")] = False,
    namespace: Namespace = "default",
) -> None:
    """Run a command in an instance of a function; without one, a shell. Ends with the command's exit code."""
    words = command or ["sh"]
    if not command:
        stdin, tty = True, tty or sys.stdin.isatty()
    raise typer.Exit(asyncio.run(_execute(name, namespace, instance, words, stdin, tty)))


async def _execute(name: str, namespace: str, instance: str, words: list[str], stdin: bool, tty: bool) -> int:
    from core.api import views
    from core.api.kinds import POD
    from faaslite.api.names import FUNCTION, LABEL_FUNCTION

    async with connect() as (client, transport):
        await client.get(FUNCTION, name, namespace)
        pods, _ = await client.list(POD, namespace, labels=f"{LABEL_FUNCTION}={name}", as_=views.Pod)
        pod = choose(pods, instance)
        if pod is None:
            known = ", ".join(each.name for each in pods) or "none"
            wanted = f"no instance {instance}" if instance else "no instance that is ready"
            raise NotThere(
                f"{name} has {wanted} (there are: {known}); call it, or keep one with `faas scale {name} --min 1`"
            )
        query = [("container", "function"), ("stdout", "true"), ("stderr", "false" if tty else "true")]
        query += [(key, "true") for key, wants in (("stdin", stdin), ("tty", tty)) if wants]
        query += [("command", each) for each in words]
        async with transport.connect(POD.path(namespace, pod.name, "exec"), query, [PROTOCOL]) as connection:
            with _raw(tty and sys.stdin.isatty()):
                return await _converse(connection, stdin, tty)


def choose(pods: Any, instance: str) -> Any:
    """The Pod of that name, or the first one that is ready; None where there is none."""
    if instance:
        return next((each for each in pods if each.name == instance), None)
    return next((each for each in pods if each.ready and not each.metadata.deletion_timestamp), None)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Keys go to the instance as they are, and the terminal is afterwards as it was."""
    if not wanted:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def _converse(connection: ClientConnection, stdin: bool, tty: bool) -> int:
    from websockets.exceptions import ConnectionClosed

    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def resize() -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(sys.stdin.fileno())
            message = bytes((RESIZE,)) + json.dumps({"Width": size.columns, "Height": size.lines}).encode()
            task = loop.create_task(connection.send(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    if tty and sys.stdin.isatty():
        loop.add_signal_handler(signal.SIGWINCH, resize)
        resize()
    if stdin:
        # A thread that nobody waits for: a read of a terminal can't be called off.
        threading.Thread(target=_feed, args=(loop, connection), daemon=True).start()
    try:
        async for message in connection:
            data = message.encode() if isinstance(message, str) else message
            if data[:1] in (b"\x01", b"\x02") and len(data) > 1:
                _write(data[0], data[1:])
            elif data[:1] == bytes((ERROR,)):
                return exit_code(json.loads(data[1:]))
    except ConnectionClosed as error:
        raise CallFailed(f"the connection to the instance broke: {error}") from error
    raise CallFailed("the instance has gone before the command ended")


def _feed(loop: asyncio.AbstractEventLoop, connection: ClientConnection) -> None:
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(
        ConnectionClosed, RuntimeError, OSError
    ):  # it ended meanwhile, and maybe the event loop too
        while data := os.read(sys.stdin.fileno(), PIECE):
            asyncio.run_coroutine_threadsafe(connection.send(bytes((STDIN,)) + data), loop).result()
        asyncio.run_coroutine_threadsafe(connection.send(bytes((CLOSE, STDIN))), loop).result()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def exit_code(status: dict[str, Any]) -> int:
    """Of the command, from the final `Status`. Raises `CallFailed` where it never ran to its end."""
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        return next(int(each["message"]) for each in status["details"]["causes"] if each.get("reason") == "ExitCode")
    raise CallFailed(str(status.get("message") or "the command could not be run"))
