"""`faas dev`: functions on this machine, without a cluster, started again when a file is saved."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.builds import BuildPlace
from cli.deploy import asked, spec_from_flags
from cli.errors import CliError, Usage
from cli.options import Crons, Env, Handler, Name, Runtime, Upgrade
from cli.output import echo, note
from core.errors import FaasliteError

if TYPE_CHECKING:
    from faaslite.build.plan import Asked

__all__ = ["parse_at", "read_secrets", "register"]

SECRETS_FOLDER = ".secrets"


def register(app: typer.Typer) -> None:
    app.command()(dev)


def dev(
    path: Annotated[Path, typer.Argument(help="A folder, or one file; as for `faas deploy`.")],
    port: Annotated[
        int, typer.Option(help="Where to listen on 127.0.0.1; 0 picks a free port.", min=0, max=65535)
    ] = 8080,
    at: Annotated[str, typer.Option(help="What time it is to be for cron, such as 2026-01-31T02:59:50+01:00.")] = "",
    secret: Annotated[
        list[str] | None, typer.Option(help="NAME/KEY=VALUE; may be repeated, beside .secrets/NAME/KEY.")
    ] = None,
    name: Name = "",
    handler: Handler = "",
    runtime: Runtime = "",
    env: Env = None,
    cron: Crons = None,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Start again when a file is saved.")] = True,
    upgrade: Upgrade = False,
) -> None:
    """Run functions here, without a cluster, with the same paths, errors, secrets, calls and cron."""
    spec = spec_from_flags(
        runtime=runtime, env=env or [], secret=[], cron=cron or [], minimum=None, maximum=None,
        concurrency=None, timeout="", memory="", cpu="",
    )  # fmt: skip
    folder = path if path.is_dir() else path.parent
    secrets = read_secrets(folder / SECRETS_FOLDER, secret or [])
    wanted = asked("default", name, handler, spec, fresh=upgrade, build=BuildPlace.local)
    asyncio.run(_serve(path, port, parse_at(at), secrets, wanted, reload))


def parse_at(text: str) -> float | None:
    """Seconds since the epoch; a time without a zone is of this machine's. Raises Usage."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Usage(f"--at {text!r} is not a time: write it like 2026-01-31T02:59:50+01:00") from None


def read_secrets(folder: Path, given: list[str]) -> dict[str, dict[str, str]]:
    """Files `NAME/KEY` below the folder, and `NAME/KEY=VALUE` on top. Raises Usage."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob("*/*")):
        if file.is_file():
            found.setdefault(file.parent.name, {})[file.name] = file.read_text()
    for each in given:
        where, separator, value = each.partition("=")
        secret, slash, key = where.partition("/")
        if not (separator and slash and secret and key):
            raise Usage(f"--secret {where!r} is not NAME/KEY=VALUE")
        found.setdefault(secret, {})[key] = value
    return found


async def _serve(
    path: Path, port: int, at: float | None, secrets: Mapping[str, Mapping[str, str]], wanted: Asked, reload: bool
) -> None:
    from faaslite.dev.platform import LocalPlatform
    from faaslite.dev.reload import Watch

    stop, changed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    platform = LocalPlatform(wanted.cache, port=port, at=at, say=_say)
    watch: Watch | None = None
    try:
        try:
            await platform.start()
        except OSError as error:
            raise CliError(f"can't listen on 127.0.0.1:{port}: {error.strerror}; choose another with --port") from error
        if reload:
            watch = Watch(await asyncio.to_thread(_folder, path), changed.set)
        names = await platform.load(path, wanted, secrets)
        for each in names:
            echo(f"{each}: {platform.url}/function/{each}")
        while not stop.is_set():
            await _first(stop, changed)
            if changed.is_set() and not stop.is_set():
                changed.clear()
                await _again(platform, path, wanted, secrets)
    finally:
        if watch is not None:
            watch.close()
        await platform.stop()


async def _again(platform: object, path: Path, wanted: Asked, secrets: Mapping[str, Mapping[str, str]]) -> None:
    from faaslite.dev.platform import LocalPlatform

    assert isinstance(platform, LocalPlatform)
    try:
        names = await platform.load(path, wanted, secrets)
        note(f"loaded again: {', '.join(names)}")
    except FaasliteError as error:
        note(f"error: {error}")


def _folder(path: Path) -> Path:
    return path.resolve() if path.is_dir() else path.resolve().parent


def _say(name: str, line: str) -> None:
    note(f"{name} | {line}" if name else line)


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(each.wait()) for each in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
