"""`faas list`, `describe`, `scale`, `delete`: functions that are there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import gateway, run
from cli.errors import Usage
from cli.options import AllNamespaces, Namespace, Output
from cli.output import Format, age, echo, emit, table
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["register", "state_of"]


def register(app: typer.Typer) -> None:
    app.command("list")(list_)
    app.command()(describe)
    app.command()(scale)
    app.command()(delete)


def condition(document: Document, type_: str) -> Document:
    """A condition of an object, {} where it has none of that type."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == type_), {})


def state_of(document: Document) -> str:
    """A function's state in a word: what is wrong with it, or with its instances; else that it serves."""
    ready, healthy = condition(document, "Ready"), condition(document, "Healthy")
    if ready.get("status") != "True":
        return str(ready.get("reason") or "Unknown")
    return str(healthy.get("reason")) if healthy.get("status") == "False" else "Serving"


def list_(
    namespace: Namespace = "default", all_namespaces: AllNamespaces = False, output: Output = Format.table
) -> None:
    """List functions."""
    from faaslite.api.names import FUNCTION

    where = "" if all_namespaces else namespace
    items: list[Document] = run(lambda client: client.list(FUNCTION, where))[0]
    if output is not Format.table:
        emit(items, output)
        return
    now = time.time()
    target = gateway()
    rows = []
    for each in items:
        meta, status = each["metadata"], each.get("status") or {}
        rows.append(
            (
                *((meta["namespace"],) if all_namespaces else ()),
                meta["name"],
                condition(each, "Ready").get("status") or "Unknown",
                state_of(each),
                status.get("latestReadyRevision") or "-",
                status.get("replicas") or 0,
                target.function_url(meta["namespace"], meta["name"]),
                age(meta.get("creationTimestamp"), now),
            )
        )
    headers = (
        *(("NAMESPACE",) if all_namespaces else ()),
        "NAME",
        "READY",
        "STATE",
        "REVISION",
        "REPLICAS",
        "URL",
        "AGE",
    )
    table(headers, rows, f"no functions in {namespace}; `faas deploy PATH` makes one")


def describe(name: str, namespace: Namespace = "default", output: Output = Format.table) -> None:
    """Show a function with its revisions, instances and recent events."""

    async def gather(client: Client) -> dict[str, Any]:
        from core.api.kinds import EVENT, POD, REPLICA_SET
        from faaslite.api.names import FUNCTION, LABEL_FUNCTION

        labels = f"{LABEL_FUNCTION}={name}"
        function = await client.get(FUNCTION, name, namespace)
        revisions, _ = await client.list(REPLICA_SET, namespace, labels=labels)
        pods, _ = await client.list(POD, namespace, labels=labels)
        names = {name, *(each["metadata"]["name"] for each in (*revisions, *pods))}
        events, _ = await client.list(EVENT, namespace)
        about = [each for each in events if each["involvedObject"].get("name") in names]
        return {"function": function, "revisions": revisions, "instances": pods, "events": about}

    found = run(gather)
    if output is not Format.table:
        emit(found, output)
        return
    now = time.time()
    _print_function(found["function"], namespace, now)
    echo("Revisions:")
    for each in found["revisions"]:
        ready = (each.get("status") or {}).get("readyReplicas") or 0
        echo(f"  {each['metadata']['name']}: {ready} of {each['spec'].get('replicas', 0)} instances ready")
    echo("Instances:")
    for each in found["instances"]:
        status = each.get("status") or {}
        ready = condition(each, "Ready").get("status") == "True"
        echo(
            f"  {each['metadata']['name']}: {status.get('phase', 'Unknown')}{', ready' if ready else ''}, "
            f"{status.get('podIP') or 'no address'} on {each['spec'].get('nodeName') or 'no node'}{ended_before(status)}"
        )
    echo("Events:")
    recent = sorted(found["events"], key=lambda each: each.get("lastTimestamp") or "")[-10:]
    for each in recent:
        echo(
            f"  {age(each.get('lastTimestamp'), now)} ago  {each.get('type')}  {each.get('reason')}: {each.get('message')}"
        )


def ended_before(status: Document) -> str:
    """How often an instance was started again, and how it ended the last time; "" where it never was."""
    for each in status.get("containerStatuses") or ():
        last = (each.get("lastState") or {}).get("terminated")
        if last:
            hint = ": raise its memory limit" if last.get("reason") == "OOMKilled" else ""
            count = each.get("restartCount", 0)
            return f", started again {count} time{'s' if count != 1 else ''} after {last.get('reason', 'its end')} (exit code {last.get('exitCode')}){hint}"
    return ""


def _print_function(function: Document, namespace: str, now: float) -> None:
    meta, spec, status = function["metadata"], function["spec"], function.get("status") or {}
    echo(f"Name:       {meta['name']}")
    echo(f"Namespace:  {meta['namespace']}")
    echo(f"URL:        {gateway().function_url(namespace, meta['name'])}")
    echo(f"Runtime:    {spec.get('runtime', 'python')}{'  handler ' + spec['handler'] if spec.get('handler') else ''}")
    scaling = ", ".join(f"{key} {value}" for key, value in (spec.get("scale") or {}).items())
    echo(
        f"Scale:      {scaling or 'defaults'}; concurrency {spec.get('concurrency', 10)}, timeout {spec.get('timeout', '30s')}"
    )
    for each in spec.get("cron") or ():
        echo(f"Cron:       {each.get('name', '')}  {each['schedule']}  {each.get('timeZone', 'UTC')}")
    traffic = ", ".join(f"{each['revision']} {each['percent']}%" for each in status.get("traffic") or ())
    echo(f"Traffic:    {traffic or 'none'}")
    echo("Conditions:")
    for each in status.get("conditions") or ():
        because = " ".join(part for part in (each.get("reason"), each.get("message")) if part)
        since = f"  (for {age(each['lastTransitionTime'], now)})" if each.get("lastTransitionTime") else ""
        echo(f"  {each['type']}: {each['status']}{'  ' + because if because else ''}{since}")


def scale(
    name: str,
    minimum: Annotated[int | None, typer.Option("--min", help="Instances that are always kept.", min=0)] = None,
    maximum: Annotated[int | None, typer.Option("--max", help="Instances at most, 0 for no bound.", min=0)] = None,
    idle: Annotated[str, typer.Option(help="How long an instance without calls is kept, such as 30s.")] = "",
    namespace: Namespace = "default",
) -> None:
    """Change how far a function scales."""
    from faaslite.api.function import validate
    from faaslite.api.names import FUNCTION

    change: dict[str, Any] = {
        key: value for key, value in (("min", minimum), ("max", maximum), ("idle", idle or None)) if value is not None
    }
    if not change:
        raise Usage("say what to change with --min, --max or --idle")

    async def apply(client: Client) -> Document:
        current = await client.get(FUNCTION, name, namespace)
        spec = {**current["spec"], "scale": {**(current["spec"].get("scale") or {}), **change}}
        validate({**current, "spec": spec})
        return await client.patch(FUNCTION, name, namespace, {"spec": {"scale": change}})

    done = run(apply)
    echo(f"{name} scales with {', '.join(f'{key} {value}' for key, value in done['spec']['scale'].items())}")


def delete(names: Annotated[list[str], typer.Argument(help="Functions.")], namespace: Namespace = "default") -> None:
    """Delete functions with their revisions and instances."""

    async def remove(client: Client) -> None:
        from faaslite.api.names import FUNCTION

        for each in names:
            await client.delete(FUNCTION, each, namespace)
            echo(f"function {each} deleted from {namespace}")

    run(remove)
