"""`faas revisions`, `rollback`, `traffic`: which code takes the calls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import gateway, run
from cli.errors import CallFailed, NotThere, TimedOut, Usage
from cli.options import Namespace, Output
from cli.output import Format, age, echo, emit, table

if TYPE_CHECKING:
    from core.api.meta import Document
    from core.client.rest import Client

__all__ = ["register"]

WAIT = 30.0
"""Seconds for the controller to follow."""


def register(app: typer.Typer) -> None:
    app.command()(revisions)
    app.command()(rollback)
    app.command()(traffic)


def revisions(name: str, namespace: Namespace = "default", output: Output = Format.table) -> None:
    """List the revisions of a function, with their share of the calls, tags and URLs."""
    found = run(lambda client: _listed(client, name, namespace))
    if output is not Format.table:
        emit(found, output)
        return
    now = time.time()
    rows = [
        (
            each["name"],
            "yes" if each["ready"] else "never",
            f"{each['percent']}%",
            ",".join(each["tags"]) or "-",
            each["replicas"],
            age(each["created"], now),
            each["url"],
        )
        for each in found
    ]
    table(("REVISION", "READY", "TRAFFIC", "TAGS", "REPLICAS", "AGE", "URL"), rows, f"{name} has no revision yet")


def rollback(
    name: str,
    to: Annotated[
        str, typer.Option(help="A revision's number or name.", show_default="the last before that was ready")
    ] = "",
    namespace: Namespace = "default",
) -> None:
    """Give all calls to an earlier revision. `faas traffic NAME latest=100` goes back to the newest."""

    async def apply(client: Client) -> str:
        listed = await _listed(client, name, namespace)
        if to:
            chosen = _named(to, name, [each["name"] for each in listed])
        else:
            at = max((index for index, each in enumerate(listed) if each["percent"]), default=len(listed))
            earlier = [each["name"] for each in listed[at + 1 :] if each["ready"]]
            if not earlier:
                raise CallFailed(f"{name} has no revision before the one that takes the calls which was ever ready")
            chosen = earlier[0]
        kept = await _tags(client, name, namespace)
        await _set(client, name, namespace, [{"revision": chosen, "percent": 100}, *kept])
        return chosen

    echo(f"{name} answers with {run(apply)}; `faas traffic {name} latest=100` goes back to the newest")


def traffic(
    name: str,
    shares: Annotated[
        list[str] | None, typer.Argument(help="REVISION=PERCENT; latest, a number or a name. Together 100.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="TAG=REVISION: also at /function/NAME@TAG; may be repeated.")
    ] = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", help="A tag to take away; may be repeated.")] = None,
    namespace: Namespace = "default",
    output: Output = Format.table,
) -> None:
    """Show or change which revisions take the calls."""

    async def apply(client: Client) -> list[dict[str, Any]]:
        if shares or tag or untag:
            known = [each["name"] for each in await _listed(client, name, namespace)]
            tags = {each["tag"]: each for each in await _tags(client, name, namespace)}
            for each in tag or ():
                label, revision = _pair(each, "--tag", "TAG=REVISION")
                tags[label] = {"revision": _named(revision, name, known), "percent": 0, "tag": label}
            for each in untag or ():
                if tags.pop(each, None) is None:
                    raise NotThere(f"{name} has no tag {each!r}")
            rows = [_share(each, name, known) for each in shares] if shares else await _shares(client, name, namespace)
            await _set(client, name, namespace, [*rows, *tags.values()])
        return [each for each in await _listed(client, name, namespace) if each["percent"] or each["tags"]]

    found = run(apply)
    if output is not Format.table:
        emit(found, output)
        return
    rows = [(each["name"], f"{each['percent']}%", ",".join(each["tags"]) or "-") for each in found]
    table(("REVISION", "TRAFFIC", "TAGS"), rows, f"{name} has no ready revision yet")


async def _listed(client: Client, name: str, namespace: str) -> list[dict[str, Any]]:
    """The newest first."""
    from core.api.kinds import REPLICA_SET
    from faaslite.api.names import ANNOTATION_WAS_READY, FUNCTION, LABEL_FUNCTION

    status = (await client.get(FUNCTION, name, namespace)).get("status") or {}
    sets, _ = await client.list(REPLICA_SET, namespace, labels=f"{LABEL_FUNCTION}={name}")
    routed = {each["revision"]: each for each in status.get("traffic") or ()}
    url = gateway().function_url(namespace, name)
    found = []
    for each in sorted(sets, key=lambda each: str(each["metadata"]["name"]), reverse=True):
        meta = each["metadata"]
        row = routed.get(meta["name"], {})
        found.append(
            {
                "name": meta["name"],
                "percent": row.get("percent", 0),
                "tags": row.get("tags", []),
                "ready": ANNOTATION_WAS_READY in (meta.get("annotations") or {}),
                "replicas": (each.get("status") or {}).get("replicas", 0),
                "created": meta["creationTimestamp"],
                "url": f"{url}:{meta['name'].rpartition('-')[2]}",
            }
        )
    return found


async def _spec_rows(client: Client, name: str, namespace: str) -> list[Document]:
    from faaslite.api.names import FUNCTION

    return list((await client.get(FUNCTION, name, namespace))["spec"].get("traffic") or ())


async def _tags(client: Client, name: str, namespace: str) -> list[Document]:
    """The rows with a tag, without their share."""
    rows = await _spec_rows(client, name, namespace)
    return [{**each, "percent": 0} for each in rows if each.get("tag")]


async def _shares(client: Client, name: str, namespace: str) -> list[Document]:
    """The rows as they are, without their tags."""
    rows = await _spec_rows(client, name, namespace)
    bare = [{"revision": each["revision"], "percent": each["percent"]} for each in rows if each.get("percent")]
    return bare or [{"revision": "latest", "percent": 100}]


async def _set(client: Client, name: str, namespace: str, rows: list[Document]) -> None:
    """Write it, and wait until the gateways are told to follow."""
    from faaslite.api.function import validate
    from faaslite.api.names import FUNCTION

    current = await client.get(FUNCTION, name, namespace)
    validate({**current, "spec": {**current["spec"], "traffic": rows}})
    done = await client.patch(FUNCTION, name, namespace, {"spec": {"traffic": rows}})
    generation = done["metadata"]["generation"]
    import asyncio

    for _ in range(int(WAIT / 0.05)):
        status = (await client.get(FUNCTION, name, namespace)).get("status") or {}
        if status.get("observedGeneration", 0) >= generation:
            break
        await asyncio.sleep(0.05)
    else:
        raise TimedOut(f"the controller has not followed within {WAIT:.0f} s; `faas describe {name}` shows its state")
    routes: dict[str, Any] = next(
        (each for each in status.get("conditions") or () if each["type"] == "RoutesReady"), {}
    )
    if routes.get("status") == "False":
        raise CallFailed(f"{name}: {routes.get('message') or routes.get('reason')}")


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    left, separator, right = text.partition("=")
    if not separator or not left or not right:
        raise Usage(f"{option} {text!r} is not {form}")
    return left, right


def _share(text: str, name: str, known: list[str]) -> Document:
    revision, percent = _pair(text, "", "REVISION=PERCENT")
    if not percent.rstrip("%").isdigit():
        raise Usage(f"{text!r}: {percent!r} is not a percentage")
    return {"revision": _named(revision, name, known), "percent": int(percent.rstrip("%"))}


def _named(revision: str, function: str, known: list[str]) -> str:
    """`latest`, or the name of one that exists. Raises NotThere."""
    from faaslite.api.names import revision_name

    if revision == "latest":
        return revision
    found = revision_name(function, int(revision)) if revision.isdigit() else revision
    if found not in known:
        raise NotThere(f"{function} has no revision {revision}; it has {', '.join(known) or 'none yet'}")
    return found
