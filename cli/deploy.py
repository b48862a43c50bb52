"""`faas init` and `faas deploy`: from a folder to a function that answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.builds import BUILD_ENDED, BuildLogs, BuildPlace, annotations_for, built, cluster_builds, current_build
from cli.context import Session, gateway, home_folder
from cli.errors import CliError, TimedOut, Usage
from cli.options import (
    Build,
    Concurrency,
    Cpu,
    Crons,
    Env,
    Handler,
    Maximum,
    Memory,
    Minimum,
    Name,
    Namespace,
    Output,
    Preview,
    Runtime,
    Secrets,
    Timeout,
    Upgrade,
)
from cli.output import Format, echo, emit, note
from core.api.meta import Document

if TYPE_CHECKING:
    from cli.gateway import Gateway
    from core.client.light import LightTransport
    from core.client.rest import Client
    from faaslite.build.plan import Asked, Planned

__all__ = ["asked", "register", "spec_from_flags", "upload"]

FUNCTION_FILE = "function.yaml"

_HANDLER = '''"""A function: called with a request, it returns the reply."""


def handle(event, context):
    name = event.query.get("name") or event.text or "world"
    context.logger.info("greeting %s", name)
    return {"message": f"Hello, {name}!", "revision": context.revision}
'''
_FUNCTION_YAML = """\
# What `faas deploy` reads beside the code; its flags override it. `spec` is that of the Function kind.
name: NAME
spec:
  concurrency: 10
  timeout: 30s
  scale: {min: 0, max: 20, idle: 30s}
"""


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(deploy)


def init(
    path: Annotated[Path, typer.Argument(help="A folder to make; its name becomes the function's.")],
) -> None:
    """Make a function to start from."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Usage(f"{path} exists and is not an empty folder; name a new one")
    from faaslite.build.plan import function_name

    name = function_name(path, "", "")
    path.mkdir(parents=True, exist_ok=True)
    (path / "handler.py").write_text(_HANDLER)
    (path / "requirements.txt").write_text("# One dependency a line, as for pip.\n")
    (path / FUNCTION_FILE).write_text(_FUNCTION_YAML.replace("NAME", name))
    echo(f"made {path}/handler.py, requirements.txt and {FUNCTION_FILE}; deploy it with `faas deploy {path}`")


def deploy(
    path: Annotated[Path, typer.Argument(help="A folder, or one file; every function that it declares.")],
    name: Name = "",
    namespace: Namespace = "default",
    handler: Handler = "",
    runtime: Runtime = "",
    env: Env = None,
    secret: Secrets = None,
    cron: Crons = None,
    minimum: Minimum = None,
    maximum: Maximum = None,
    concurrency: Concurrency = None,
    timeout: Timeout = "",
    memory: Memory = "",
    cpu: Cpu = "",
    preview: Preview = False,
    build: Build = None,
    upgrade: Upgrade = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and check, show what would change, send nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it serves.")] = True,
    wait_timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=0)] = 120.0,
    output: Output = Format.table,
) -> None:
    """Deploy a folder or file as functions, and wait until they serve."""
    from faaslite.build.plan import plan

    started = time.monotonic()
    spec = spec_from_flags(
        runtime=runtime, env=env or [], secret=secret or [], cron=cron or [], minimum=minimum, maximum=maximum,
        concurrency=concurrency, timeout=timeout, memory=memory, cpu=cpu,
    )  # fmt: skip
    with Session() as session:
        wanted = asked(namespace, name, handler, spec, session, preview=preview, fresh=upgrade, build=build)
        planned = plan(path, wanted, note)
        target = gateway()
        documents = [each.document for each in planned]
        if dry_run:
            from cli.diff import compare, show

            found = session.run(lambda client, _: compare(client, planned, target))
            emit(documents, output) if output is not Format.table else show(found)
            return
        upload(planned, namespace, target)
        patience = wait_timeout if wait else 0.0
        done = session.run(
            lambda client, transport: _apply_and_wait(client, transport, documents, patience, fresh=upgrade)
        )
    if output is not Format.table:
        emit(done[0] if len(done) == 1 else done, output)
        return
    took = f" in {time.monotonic() - started:.1f} s" if wait else ""
    for each in done:
        url = target.function_url(namespace, each["metadata"]["name"])
        echo(f"{each['metadata']['name']} {'serves' if wait else 'accepted'}{took}: {url}")


def asked(
    namespace: str,
    name: str,
    handler: str,
    spec: dict[str, Any],
    session: Session | None = None,
    *,
    preview: bool = False,
    fresh: bool = False,
    build: BuildPlace | None = None,
) -> Asked:
    """What flags say, with where this user keeps layers and the logs of builds that failed. `session` is with the cluster to deploy to."""
    from faaslite.build.plan import Asked

    home = home_folder()
    if build is not None or session is None:
        remote = lambda _: build is BuildPlace.cluster  # noqa: E731
    else:
        says = cache(lambda: session.run(lambda client, _: cluster_builds(client)))
        remote = lambda runtime: says()(runtime)  # noqa: E731
    known = same_but_code(partial(accepted, session)) if session is not None else lambda _: False
    layers, logs = home / "layers", home / "logs" / "builds"
    return Asked(namespace, name, handler, spec, preview, fresh, layers, logs, remote, known)


def same_but_code(known: Callable[[str, str], Document]) -> Callable[[Document], bool]:
    """Whether the spec that `known` gives for a document's namespace and name is the document's, but for the code in it."""
    asks = cache(known)

    def same(document: Document) -> bool:
        meta, spec = document["metadata"], document["spec"]
        has = asks(meta["namespace"], meta["name"])
        if "package" in spec and _requirements(has) != _requirements(spec):
            return False
        return bool(has) and _but_code(has) == _but_code(spec)

    return same


def _but_code(spec: Document) -> Document:
    return {key: value for key, value in spec.items() if key not in ("handler", "package")}


def _requirements(spec: Document) -> str:
    return str((spec.get("package") or {}).get("requirements") or "")


def accepted(session: Session, namespace: str, name: str) -> Document:
    """The spec of the Function as the cluster has it and found it valid; {} where it hasn't, or can't be asked."""
    from core.errors import FaasliteError
    from faaslite.api.names import FUNCTION

    try:
        found = session.run(lambda client, _: client.get(FUNCTION, name, namespace))
    except FaasliteError:
        return {}  # who deploys is told of it when it matters
    status = found.get("status") or {}
    seen = status.get("observedGeneration") == found["metadata"].get("generation")
    conditions = status.get("conditions") or ()
    refused = any(each.get("reason") == "InvalidSpec" for each in conditions)
    spec: Document = found["spec"]
    return spec if seen and not refused else {}


def upload(planned: Sequence[Planned], namespace: str, target: Gateway) -> None:
    """Hand to the package store what it doesn't have: for a change of code alone, the code."""
    sent: set[str] = set()
    for each in planned:
        if each.archive is not None and each.archive.digest not in sent:
            sent.add(each.archive.digest)
            if target.put_package(each.archive.digest, each.archive.data, namespace):
                files = f"{each.archive.files} file{'s' if each.archive.files != 1 else ''}"
                note(f"uploaded the package: {_size(len(each.archive.data))}, {files}")
        if each.layer is not None and each.layer.digest not in sent:
            sent.add(each.layer.digest)
            if target.has_package(each.layer.digest, namespace):
                continue  # its data needn't be read
            data = each.layer.data
            target.put_package(each.layer.digest, data, namespace)
            note(f"uploaded the dependency layer: {_size(len(data))}")


def spec_from_flags(
    *,
    runtime: str,
    env: list[str],
    secret: list[str],
    cron: list[str],
    minimum: int | None,
    maximum: int | None,
    concurrency: int | None,
    timeout: str,
    memory: str,
    cpu: str,
) -> dict[str, Any]:
    """The part of a Function's spec that flags say. Raises Usage."""
    spec: dict[str, Any] = {}
    if runtime:
        spec["runtime"] = runtime
    if env:
        spec["env"] = [_env(each) for each in env]
    if secret:
        spec["secrets"] = secret
    if cron:
        spec["cron"] = [{"name": f"cron-{number}", "schedule": each} for number, each in enumerate(cron, 1)]
    scale = {key: value for key, value in (("min", minimum), ("max", maximum)) if value is not None}
    if scale:
        spec["scale"] = scale
    if concurrency is not None:
        spec["concurrency"] = concurrency
    if timeout:
        spec["timeout"] = timeout
    if memory:
        spec["resources"] = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    if cpu:
        spec.setdefault("resources", {}).setdefault("requests", {})["cpu"] = cpu
    return spec


def _env(text: str) -> dict[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise Usage(f"--env {text!r} is not KEY=VALUE")
    return {"name": key, "value": value}


def _size(count: int) -> str:
    return f"{count / 1024:.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f} MiB"


async def _apply_and_wait(
    client: Client, transport: LightTransport, documents: Sequence[Document], patience: float, *, fresh: bool
) -> list[Document]:
    """Write the Functions, then wait for all of them; the first that fails ends the wait with its reason. Builds that run are waited for,
    however long they take: they have a bound of their own."""
    applied = [await _apply(client, each, fresh=fresh) for each in documents]
    if not patience:
        return applied
    logs = BuildLogs(transport, documents[0]["metadata"]["namespace"])
    loop = asyncio.get_running_loop()
    waiting: dict[str, asyncio.Task[Document]] = {}
    try:
        async with asyncio.timeout(patience) as bound:

            def see(document: Document) -> None:
                before = logs.building
                logs.see(document)
                if logs.building != before and not bound.expired():
                    bound.reschedule(None if logs.building else loop.time() + patience)

            for each in applied:
                waiting[each["metadata"]["name"]] = asyncio.create_task(_until_ready(client, each, see))
            return await asyncio.gather(*waiting.values())
    except TimeoutError:
        late = [name for name, task in waiting.items() if task.cancelled() or not task.done()]
        verb = "does" if len(late) == 1 else "do"
        raise TimedOut(
            f"{', '.join(late)} {verb} not serve after {patience:.0f} s; `faas describe {late[0]}` and `faas logs {late[0]}` say more"
        ) from None
    finally:
        for task in waiting.values():
            task.cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)
        await logs.finish()


async def _apply(client: Client, document: Document, *, fresh: bool) -> Document:
    """Create the Function or replace the spec of the one that is there."""
    from core.errors import AlreadyExists, NotFound
    from faaslite.api.names import FUNCTION

    meta = document["metadata"]
    builds = bool((document["spec"].get("package") or {}).get("requirements"))
    try:
        current = await client.get(FUNCTION, meta["name"], meta["namespace"])
    except NotFound:
        said = annotations_for(None, fresh=fresh) if builds else {}
        new = {**document, "metadata": {**meta, **({"annotations": said} if said else {})}}
        try:
            return await client.create(FUNCTION, new, meta["namespace"])
        except AlreadyExists:
            current = await client.get(FUNCTION, meta["name"], meta["namespace"])
    change: list[Document] = [{"op": "add", "path": "/spec", "value": document["spec"]}]
    if builds and (said := annotations_for(current, fresh=fresh)):
        had = current["metadata"].get("annotations") or {}
        change.append({"op": "add", "path": "/metadata/annotations", "value": {**had, **said}})
    patched: Document = await client.patch(
        FUNCTION, meta["name"], meta["namespace"], change, patch_type="application/json-patch+json"
    )
    return patched


async def _until_ready(client: Client, applied: Document, see: Callable[[Document], None]) -> Document:
    """Watch the Function until the generation that was applied serves; `see` gets its news. Raises CliError with the reason where it won't."""
    from contextlib import aclosing

    import msgspec

    from faaslite.api.names import FUNCTION

    meta = applied["metadata"]
    query = {"resourceVersion": meta["resourceVersion"], "fieldSelector": f"metadata.name={meta['name']}"}
    current: Document = applied
    said = ""
    verdict, reason = readiness(applied, meta["generation"])
    if verdict is True:
        return applied  # nothing was changed
    if verdict is False:
        raise CliError(f"{meta['name']} is deployed like this already, and fails: {reason}")
    while True:
        async with aclosing(client.transport.watch(FUNCTION.path(meta["namespace"]), query)) as batches:
            async for batch in batches:
                for event in batch:
                    current = msgspec.json.decode(event.object)
                    if event.type == "DELETED":
                        raise CliError(f"{meta['name']} was deleted while it was deployed")
                    if current_build(current):
                        see(current)
                    verdict, reason = readiness(current, meta["generation"])
                    if verdict is True:
                        return current
                    if verdict is False:
                        if built(current)[1] in BUILD_ENDED:
                            reason += f" (build log: faas logs {meta['name']} --build)"
                        raise CliError(f"{meta['name']} was not deployed: {reason}")
                    if reason and reason != said:
                        said = reason
                        note(f"waiting: {reason}")
        query["resourceVersion"] = current["metadata"]["resourceVersion"]


def readiness(document: Document, generation: int) -> tuple[bool | None, str]:
    """Whether that generation of a Function serves: True, False (it failed), None (not known yet), and why."""
    status = document.get("status") or {}
    if (status.get("observedGeneration") or 0) < generation or not current_build(document):
        return None, ""
    ready = next((each for each in status.get("conditions") or () if each["type"] == "Ready"), None)
    if ready is None:
        return None, ""
    reason = ready.get("message") or ready.get("reason") or ""
    if ready["status"] == "True":
        return True, ""
    return (False, reason) if ready["status"] == "False" else (None, reason)
