"""`faas diff`: what a deploy would change, field by field and file by file."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import Session, gateway
from cli.deploy import asked, spec_from_flags
from cli.errors import NotThere
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
    Preview,
    Runtime,
    Secrets,
    Timeout,
    Upgrade,
)
from cli.output import echo, note

if TYPE_CHECKING:
    from cli.gateway import Gateway
    from core.client.rest import Client
    from faaslite.build.plan import Planned

__all__ = ["Difference", "compare", "register", "show"]


def register(app: typer.Typer) -> None:
    app.command()(diff)


@dataclass(slots=True)
class Difference:
    """Of one Function: lines that say what changes; `new` where there is none yet."""

    name: str
    new: bool = False
    lines: list[str] = field(default_factory=list)


def diff(
    path: Annotated[Path, typer.Argument(help="A folder, or one file; as for `faas deploy`.")],
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
) -> None:
    """Show what `faas deploy` would change; exit code 1 where that is anything."""
    from faaslite.build.plan import plan

    spec = spec_from_flags(
        runtime=runtime, env=env or [], secret=secret or [], cron=cron or [], minimum=minimum, maximum=maximum,
        concurrency=concurrency, timeout=timeout, memory=memory, cpu=cpu,
    )  # fmt: skip
    with Session() as session:
        wanted = asked(namespace, name, handler, spec, session, preview=preview, fresh=upgrade, build=build)
        planned = plan(path, wanted, note)
        target = gateway()
        found = session.run(lambda client, _: compare(client, planned, target))
    show(found)
    if any(each.new or each.lines for each in found):
        raise typer.Exit(1)


async def compare(client: Client, planned: Sequence[Planned], target: Gateway) -> list[Difference]:
    """What is deployed beside what would be."""
    from core.errors import NotFound
    from faaslite.api.names import FUNCTION

    found = []
    for each in planned:
        try:
            current = await client.get(FUNCTION, each.name, each.document["metadata"]["namespace"])
        except NotFound:
            found.append(Difference(each.name, True, spec_lines({}, each.document["spec"])))
            continue
        old, new = current["spec"], each.document["spec"]
        lines = spec_lines(old, new)
        if each.archive is not None and (old.get("package") or {}).get("digest") != each.archive.digest:
            digest, namespace = (old.get("package") or {}).get("digest", ""), each.document["metadata"]["namespace"]
            before = await asyncio.to_thread(_files_of, target, digest, namespace)
            lines += [f"file {each}" for each in file_lines(before, _files(each.archive.data))]
        found.append(Difference(each.name, False, lines))
    return found


def show(found: Iterable[Difference]) -> None:
    for each in found:
        echo(f"+ {each.name}: new" if each.new else f"~ {each.name}" if each.lines else f"= {each.name}: no change")
        for line in each.lines:
            echo(f"    {line}")


def spec_lines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`path: old -> new`, `+ path: new`, `- path: old`, sorted by path."""
    before, after = (dict(_flat(each, "")) if each else {} for each in (old, new))
    lines = []
    for path in sorted({*before, *after}):
        if path not in before:
            lines.append(f"+ {path}: {after[path]}")
        elif path not in after:
            lines.append(f"- {path}: {before[path]}")
        elif before[path] != after[path]:
            lines.append(f"{path}: {before[path]} -> {after[path]}")
    return lines


def _flat(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for at, each in enumerate(value):
            label = each.get("name") if isinstance(each, dict) else None
            rest = {key: inner for key, inner in each.items() if key != "name"} if label else each
            yield from _flat(rest, f"{path}[{label or at}]")
    else:
        text = str(value)
        yield path, text[:19] if text.startswith("sha256:") else repr(value) if isinstance(value, str) else text


def file_lines(before: dict[str, str] | None, after: dict[str, str]) -> list[str]:
    """`~ name`, `+ name`, `- name`; before is None where the old package can't be had."""
    if before is None:
        return []
    marks = {
        name: "+" if name not in before else "-" if name not in after else "~" if before[name] != after[name] else ""
        for name in sorted({*before, *after})
    }
    return [f"{mark} {name}" for name, mark in marks.items() if mark]


def _files_of(target: Gateway, digest: str, namespace: str) -> dict[str, str] | None:
    if not digest:
        return {}
    try:
        return _files(target.get_package(digest, namespace))
    except NotThere:
        return None


def _files(data: bytes) -> dict[str, str]:
    """Digests of an archive's files by their names."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for each in tar:
            content = tar.extractfile(each) if each.isfile() else None
            found[each.name] = hashlib.sha256(content.read() if content else each.linkname.encode()).hexdigest()
    return found
