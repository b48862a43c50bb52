"""`faas logs`: what a function's instances wrote, merged."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import connect
from cli.errors import NotThere
from cli.options import Namespace
from cli.output import echo, note
from core.errors import ApiError, NotFound

if TYPE_CHECKING:
    from core.client.light import LightTransport
    from core.client.rest import Client

__all__ = ["kept_logs", "plain_lines", "print_kept", "register"]


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    name: str,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as more is written, new instances too.")
    ] = False,
    tail: Annotated[int, typer.Option(help="Lines per instance to begin with, -1 for all.")] = -1,
    previous: Annotated[
        bool, typer.Option("-p", "--previous", help="Of the instance's run before the last restart.")
    ] = False,
    timestamps: Annotated[bool, typer.Option(help="Show when each line was written.")] = False,
    build: Annotated[
        bool, typer.Option("--build", help="Of the last build of its dependencies in the cluster.")
    ] = False,
    namespace: Namespace = "default",
) -> None:
    """Print the logs of a function's instances, those that are gone first."""
    query = {
        key: value
        for key, value in (
            ("tailLines", str(tail) if tail >= 0 else ""),
            ("previous", "true" if previous else ""),
            ("timestamps", "true" if timestamps else ""),
        )
        if value
    }
    with suppress(KeyboardInterrupt):
        if build:
            asyncio.run(_print_build(name, namespace, {**query, "follow": "true"} if follow else query))
            return
        asyncio.run(_follow(name, namespace, query) if follow else _print(name, namespace, query))


async def _print(name: str, namespace: str, query: dict[str, str]) -> None:
    from core.api import views
    from core.api.kinds import POD
    from faaslite.api.names import FUNCTION, LABEL_FUNCTION

    async with connect() as (client, transport):
        await client.get(FUNCTION, name, namespace)
        pods, _ = await client.list(POD, namespace, labels=f"{LABEL_FUNCTION}={name}", as_=views.Pod)
        here = {pod.name for pod in pods}
        gone = [each for each in kept_logs(name, namespace) if _pod_of(each) not in here]
        if not pods and not gone:
            raise NotThere(f"{name} has no instances now; call it, or follow what comes with `faas logs -f {name}`")
        several = len(here | {_pod_of(each) for each in gone}) > 1
        if "previous" not in query:
            print_kept(gone, query, named=several)
        if not pods:
            note(f"{name} has no instances now; this is what the last ones wrote")
        for pod in pods:
            prefix = f"{pod.name}  " if several else ""
            if "previous" not in query and any(each.restart_count for each in pod.status.container_statuses):
                await _stream(
                    transport, POD.path(namespace, pod.name, "log"), {**query, "previous": "true"}, prefix, quiet=True
                )
                note(f"{prefix}was started again here")
            await _stream(transport, POD.path(namespace, pod.name, "log"), query, prefix)


async def _print_build(name: str, namespace: str, query: dict[str, str]) -> None:
    from core.api.kinds import POD
    from faaslite.api.names import FUNCTION

    async with connect() as (client, transport):
        function = await client.get(FUNCTION, name, namespace)
        pod = str(((function.get("status") or {}).get("build") or {}).get("pod") or "")
        try:
            if not pod:
                raise NotFound("")
            await client.get(POD, pod, namespace)
        except NotFound:
            raise NotThere(
                f"no build of {name} is kept: one that failed stays, one that went well for some minutes"
            ) from None
        await _stream(transport, POD.path(namespace, pod, "log"), query, "")


def kept_logs(name: str, namespace: str) -> list[Path]:
    """The log files that instances left on this machine, the oldest first; none where the cluster is another one's."""
    from cli.context import home_folder, kubeconfig_file

    folder = home_folder() / "logs" / "pods"
    if kubeconfig_file() != home_folder() / "kubeconfig" or not folder.is_dir():
        return []
    ours = re.compile(rf"{re.escape(namespace)}_{re.escape(name)}-\d{{5,}}-[a-z0-9]+_[-0-9a-f]+")
    files = [file for each in folder.iterdir() if ours.fullmatch(each.name) for file in each.glob("*/*.log")]
    return sorted(files, key=lambda file: file.stat().st_mtime)


def _pod_of(file: Path) -> str:
    """Whose log it is: files are `NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`."""
    return file.parents[1].name.split("_")[1]


def print_kept(files: Sequence[Path], query: Mapping[str, str], *, named: bool) -> None:
    """Print log files of instances that are gone; `named`: each line begins with whose it is."""
    for file in files:
        prefix = f"{_pod_of(file)}  " if named else ""
        lines = plain_lines(file.read_text(errors="replace"), timestamps="timestamps" in query)
        first = max(0, len(lines) - int(query["tailLines"])) if "tailLines" in query else 0
        for line in lines[first:]:
            echo(prefix + line)


def plain_lines(text: str, *, timestamps: bool = False) -> list[str]:
    """What was written, from a log in CRI form (`TIMESTAMP STREAM F|P TEXT`): parts of a line are put together."""
    lines: list[str] = []
    begun = ""
    for each in text.splitlines():
        when, _, rest = each.partition(" ")
        _, _, rest = rest.partition(" ")
        whole, _, part = rest.partition(" ")
        begun = (begun or (f"{when} " if timestamps else "")) + part
        if whole == "F":
            lines.append(begun)
            begun = ""
    return [*lines, begun] if begun else lines


async def _follow(name: str, namespace: str, query: dict[str, str]) -> None:
    """One task per run of an instance, begun and ended with it."""
    from core.api import views
    from core.api.kinds import POD
    from core.client.informer import Informers
    from faaslite.api.names import FUNCTION, LABEL_FUNCTION

    async with connect() as (client, transport):
        await _exists(client, FUNCTION.path(namespace, name))
        informers = Informers(client)
        pods = informers.watch(POD, views.Pod, namespace=namespace, labels=f"{LABEL_FUNCTION}={name}")
        tasks: dict[str, asyncio.Task[None]] = {}

        def on_pod(_: views.Pod | None, pod: views.Pod | None) -> None:
            running = [each.container_id for each in pod.status.container_statuses if each.state.running] if pod else []
            if pod is None or not running or running[0] in tasks:
                return
            path = POD.path(namespace, pod.name, "log")
            work = _stream(transport, path, {**query, "follow": "true"}, f"{pod.name}  ")
            tasks[running[0]] = asyncio.get_running_loop().create_task(work)

        pods.add_handler(on_pod)
        await informers.start()
        try:
            await asyncio.Event().wait()
        finally:
            for task in tasks.values():
                task.cancel()
            await informers.stop()


async def _exists(client: Client, path: str) -> None:
    await client.request("GET", path)


async def _stream(
    transport: LightTransport, path: str, query: dict[str, str], prefix: str, *, quiet: bool = False
) -> None:
    """Print a log as it comes, whole lines at a time; `quiet`: where there is none, nothing is said of that."""
    rest = b""
    try:
        async with aclosing(transport.stream(path, query)) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    echo(prefix + line.decode(errors="replace"))
    except NotFound:
        if not quiet:
            note(f"{prefix}is gone")
    except ApiError as error:
        if not quiet:
            note(f"{prefix}{error}")
    if rest:
        echo(prefix + rest.decode(errors="replace"))
