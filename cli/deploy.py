"""`faas init` and `faas deploy`: from a folder to a function that answers."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import connect, gateway, home_folder
from cli.errors import CliError, TimedOut, Usage
from cli.options import Namespace, Output
from cli.output import Format, echo, emit, note
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["register"]

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
    name = function_name(path, "", "")
    path.mkdir(parents=True, exist_ok=True)
    (path / "handler.py").write_text(_HANDLER)
    (path / "requirements.txt").write_text("# One dependency a line, as for pip.\n")
    (path / FUNCTION_FILE).write_text(_FUNCTION_YAML.replace("NAME", name))
    echo(f"made {path}/handler.py, requirements.txt and {FUNCTION_FILE}; deploy it with `faas deploy {path}`")


def deploy(
    path: Annotated[Path, typer.Argument(help="A folder with the function, or one Python file.")],
    name: Annotated[str, typer.Option(help="The function's name.", show_default="the folder's name")] = "",
    namespace: Namespace = "default",
    handler: Annotated[str, typer.Option(help="MODULE:NAME of the handler.", show_default="found by itself")] = "",
    runtime: Annotated[str, typer.Option(help="python, node or image.", show_default="python")] = "",
    env: Annotated[list[str] | None, typer.Option(help="KEY=VALUE in the environment; may be repeated.")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="A secret to mount; may be repeated.")] = None,
    cron: Annotated[
        list[str] | None, typer.Option(help="'*/5 * * * *', @hourly, '@every 5s'; may be repeated.")
    ] = None,
    minimum: Annotated[int | None, typer.Option("--min", help="Instances that are always kept.")] = None,
    maximum: Annotated[int | None, typer.Option("--max", help="Instances at most.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Calls per instance at one time, 0 for no limit.")] = None,
    timeout: Annotated[str, typer.Option(help="The deadline of a call, such as 30s.")] = "",
    memory: Annotated[str, typer.Option(help="Memory limit of an instance, such as 128Mi.")] = "",
    cpu: Annotated[str, typer.Option(help="CPU of an instance, such as 250m.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it serves.")] = True,
    wait_timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 120.0,
    output: Output = Format.table,
) -> None:
    """Deploy a folder as a function, and wait until it serves."""
    from faaslite.api.function import validate
    from faaslite.build.archive import pack
    from faaslite.build.errors import BuildError

    if not path.exists():
        raise BuildError(f"{path} doesn't exist")
    declared = read_function_file(path)
    flags = _spec_from_flags(
        runtime=runtime, env=env or [], secret=secret or [], cron=cron or [], minimum=minimum, maximum=maximum,
        concurrency=concurrency, timeout=timeout, memory=memory, cpu=cpu,
    )  # fmt: skip
    spec = merge_specs(declared.get("spec") or {}, flags)
    document: Document = {
        "apiVersion": "faaslite.dev/v1",
        "kind": "Function",
        "metadata": {"name": function_name(path, name, str(declared.get("name") or "")), "namespace": namespace},
        "spec": spec,
    }
    validate(document)
    started = time.monotonic()
    if spec.get("runtime", "python") == "python":
        from faaslite.build.handler import find_handler
        from faaslite.build.layer import build_layer, requirements_of

        spec["handler"] = find_handler(path, handler or str(spec.get("handler") or ""))
        archive = pack(path)
        spec["package"] = {"digest": archive.digest}
        target = gateway()
        target.put_package(archive.digest, archive.data, namespace)
        note(f"packaged {archive.files} file{'s' if archive.files != 1 else ''}, {_size(len(archive.data))}")
        if requirements := requirements_of(path):
            layer = build_layer(requirements, home_folder() / "layers", note)
            target.put_package(layer.digest, layer.data, namespace)
            spec["package"]["layer"] = layer.digest
            note(f"dependency layer {_size(len(layer.data))}")
    elif handler:
        spec["handler"] = handler
    validate(document)
    done = asyncio.run(_apply_and_wait(document, wait_timeout if wait else 0.0))
    if output is not Format.table:
        emit(done, output)
        return
    took = f" in {time.monotonic() - started:.1f} s" if wait else ""
    verb = "serves" if wait else "accepted"
    echo(f"{done['metadata']['name']} {verb}{took}: {gateway().function_url(namespace, done['metadata']['name'])}")


def read_function_file(path: Path) -> dict[str, Any]:
    """`function.yaml` beside the code: `name` and `spec`, or a whole Function document. Raises Usage."""
    import yaml

    file = path / FUNCTION_FILE
    if not path.is_dir() or not file.exists():
        return {}
    try:
        found = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise Usage(f"{file}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not isinstance(found.get("spec") or {}, dict):
        raise Usage(f"{file} must be a map with the keys name and spec")
    unknown = sorted(set(found) - {"name", "spec", "apiVersion", "kind", "metadata"})
    if unknown:
        raise Usage(f"{file}: {unknown[0]!r} is not known here; there are name and spec")
    if "metadata" in found:
        found["name"] = (found["metadata"] or {}).get("name", "")
    return found


def function_name(path: Path, flag: str, declared: str) -> str:
    """The name by flag, by `function.yaml`, or by the folder. Raises Usage for one that is no DNS label."""
    folder = path.resolve()
    name = flag or declared or (folder.stem if folder.suffix == ".py" else folder.name)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", name):
        raise Usage(
            f"{name!r} can't be a function's name: use at most 50 of a-z, 0-9 and -, beginning and ending with a letter "
            "or digit; choose one with --name"
        )
    return name


def merge_specs(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, maps merged, lists and values replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge_specs(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _spec_from_flags(
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


async def _apply_and_wait(document: Document, patience: float) -> Document:
    async with connect() as (client, _):
        applied = await _apply(client, document)
        if not patience:
            return applied
        try:
            async with asyncio.timeout(patience):
                return await _until_ready(client, applied)
        except TimeoutError:
            name = applied["metadata"]["name"]
            raise TimedOut(
                f"{name} does not serve after {patience:.0f} s; `faas describe {name}` and `faas logs {name}` say more"
            ) from None


async def _apply(client: Client, document: Document) -> Document:
    """Create the Function or replace the spec of the one that is there."""
    from core.errors import AlreadyExists
    from faaslite.api.names import FUNCTION

    meta = document["metadata"]
    try:
        return await client.create(FUNCTION, document, meta["namespace"])
    except AlreadyExists:
        change = [{"op": "add", "path": "/spec", "value": document["spec"]}]
        patched: Document = await client.patch(
            FUNCTION, meta["name"], meta["namespace"], change, patch_type="application/json-patch+json"
        )
        return patched


async def _until_ready(client: Client, applied: Document) -> Document:
    """Watch the Function until the generation that was applied serves. Raises CliError with the reason where it won't."""
    from contextlib import aclosing

    import msgspec

    from faaslite.api.names import FUNCTION

    meta = applied["metadata"]
    query = {"resourceVersion": meta["resourceVersion"], "fieldSelector": f"metadata.name={meta['name']}"}
    current: Document = applied
    said = ""
    while True:
        async with aclosing(client.transport.watch(FUNCTION.path(meta["namespace"]), query)) as batches:
            async for batch in batches:
                for event in batch:
                    current = msgspec.json.decode(event.object)
                    if event.type == "DELETED":
                        raise CliError(f"{meta['name']} was deleted while it was deployed")
                    verdict, reason = readiness(current, meta["generation"])
                    if verdict is True:
                        return current
                    if verdict is False:
                        raise CliError(f"{meta['name']} was not deployed: {reason}")
                    if reason and reason != said:
                        said = reason
                        note(f"waiting: {reason}")
        query["resourceVersion"] = current["metadata"]["resourceVersion"]


def readiness(document: Document, generation: int) -> tuple[bool | None, str]:
    """Whether that generation of a Function serves: True, False (it failed), None (not known yet), and why."""
    status = document.get("status") or {}
    if (status.get("observedGeneration") or 0) < generation:
        return None, ""
    ready = next((each for each in status.get("conditions") or () if each["type"] == "Ready"), None)
    if ready is None:
        return None, ""
    reason = ready.get("message") or ready.get("reason") or ""
    if ready["status"] == "True":
        return True, ""
    return (False, reason) if ready["status"] == "False" else (None, reason)
