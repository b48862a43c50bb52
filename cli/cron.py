"""`faas cron`: what runs when, and what came of it."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli import calls
from cli.context import gateway
from cli.context import run as on_cluster
from cli.errors import NotThere, Usage
from cli.options import AllNamespaces, Namespace, Output
from cli.output import Format, echo, emit, note, table

__all__ = ["app"]

app = typer.Typer(help="Cron triggers of functions.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(
    namespace: Namespace = "default", all_namespaces: AllNamespaces = False, output: Output = Format.table
) -> None:
    """List cron triggers with their next and last run."""
    query = "" if all_namespaces else "?" + urlencode({"namespace": namespace})
    items: list[dict[str, Any]] = gateway().system("GET", f"/system/cron{query}")["items"]
    if output is not Format.table:
        emit(items, output)
        return
    rows = [
        (
            each["namespace"],
            each["function"],
            each["name"],
            each["schedule"],
            each.get("timeZone") or "UTC",
            "paused" if each.get("paused") else each.get("next") or "never",
            (each.get("last") or {}).get("at") or "-",
            (each.get("last") or {}).get("status") or "-",
        )
        for each in items
    ]
    headers = ("NAMESPACE", "FUNCTION", "NAME", "SCHEDULE", "ZONE", "NEXT", "LAST", "STATUS")
    table(headers, rows, "no cron triggers; add one with `faas deploy PATH --cron '*/5 * * * *'`")


@app.command("next")
def next_(
    function: str,
    name: Annotated[str, typer.Argument(help="The trigger's name, where the function has several.")] = "",
    count: Annotated[int, typer.Option("--count", "-c", min=1, max=1000, help="How many instants.")] = 5,
    namespace: Namespace = "default",
    output: Output = Format.table,
) -> None:
    """Show when a trigger fires next, in its own zone and in UTC."""
    found = gateway().system("GET", f"{_path(namespace, function, name)}/next?count={count}")
    if output is not Format.table:
        emit(found, output)
        return
    from datetime import datetime
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(found["timeZone"])
    moments = [datetime.fromisoformat(each) for each in found["instants"]]
    rows = [
        (each.astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %z"), each.strftime("%Y-%m-%dT%H:%M:%SZ"))
        for each in moments
    ]
    table((found["timeZone"].upper(), "UTC"), rows, "it never fires again")
    if found["paused"]:
        note("the trigger is paused: none of these will be run")


@app.command()
def history(
    function: str,
    name: Annotated[str, typer.Argument(help="Of one trigger only.")] = "",
    namespace: Namespace = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs, newest first.")] = 20,
    output: Output = Format.table,
) -> None:
    """List the runs that cron started, and the instants that it skipped."""
    query = {
        "namespace": namespace,
        "function": function,
        "trigger": "cron",
        "limit": limit,
        **({"cron": name} if name else {}),
    }
    items: list[dict[str, Any]] = gateway().system("GET", f"/system/calls?{urlencode(query)}")["items"]
    if output is not Format.table:
        emit(items, output)
        return
    rows = [
        (
            each.get("cron") or "-",
            each.get("scheduledAt") or "-",
            each["status"],
            each.get("httpStatus") or "-",
            each.get("attempts", 0),
            each["id"],
            (each.get("error") or "").split("\n", 1)[0][:60],
        )
        for each in items
    ]
    headers = ("CRON", "SCHEDULED", "STATUS", "HTTP", "ATTEMPTS", "CALL", "WHY")
    table(headers, rows, f"cron has not called {function} yet")


@app.command()
def run(
    function: str,
    name: Annotated[str, typer.Argument(help="The trigger's name, where the function has several.")] = "",
    payload: Annotated[str, typer.Option(help="JSON, in place of the trigger's own.")] = "",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end, and show it.")] = False,
    namespace: Namespace = "default",
    output: Output = Format.table,
) -> None:
    """Run a trigger once, now."""
    document = {"payload": _read(payload)} if payload else {}
    answer = gateway().system("POST", f"{_path(namespace, function, name)}/run", body=json.dumps(document).encode())
    if wait:
        calls.wait(answer["callId"], 300.0, output)
    elif output is Format.table:
        echo(answer["callId"])
    else:
        emit(answer, output)


@app.command()
def backfill(
    function: str,
    name: Annotated[str, typer.Argument(help="The trigger's name, where the function has several.")] = "",
    since: Annotated[str, typer.Option("--from", help="RFC 3339, 2026-03-26T00:00:00Z.")] = "",
    until: Annotated[str, typer.Option("--to", help="RFC 3339; now, where it isn't given.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which instants these are.")] = False,
    namespace: Namespace = "default",
    output: Output = Format.table,
) -> None:
    """Run the instants of a time span that have no record."""
    if not since:
        raise Usage("say since when: --from 2026-03-26T00:00:00Z")
    document: dict[str, Any] = {"from": since, "dryRun": dry_run, **({"to": until} if until else {})}
    found = gateway().system("POST", f"{_path(namespace, function, name)}/backfill", body=json.dumps(document).encode())
    if output is not Format.table:
        emit(found, output)
    elif dry_run:
        table(("INSTANT",), [(each,) for each in found["instants"]], "there are no instants in that time")
    else:
        table(("INSTANT", "CALL"), [(each["instant"], each["callId"]) for each in found["calls"]], "nothing to do")
        if found["existing"]:
            note(f"{found['existing']} instants have a record already")


@app.command()
def pause(
    function: str,
    name: Annotated[str, typer.Argument(help="One trigger only; all of the function's where it isn't given.")] = "",
    namespace: Namespace = "default",
) -> None:
    """Fire no more until it is resumed; what passes meanwhile is not made up for."""
    _set_paused(namespace, function, name, True)


@app.command()
def resume(
    function: str,
    name: Annotated[str, typer.Argument(help="One trigger only; all of the function's where it isn't given.")] = "",
    namespace: Namespace = "default",
) -> None:
    """Go on after a pause."""
    _set_paused(namespace, function, name, False)


def _set_paused(namespace: str, function: str, name: str, paused: bool) -> None:
    """In the Function's spec: there it survives everything, and kubectl shows it."""
    from core.client.rest import Client
    from core.errors import Conflict
    from faaslite.api.names import FUNCTION

    async def change(client: Client) -> list[str]:
        for attempt in range(5):
            document = await client.get(FUNCTION, function, namespace)
            triggers = (document.get("spec") or {}).get("cron") or []
            named = {str(each.get("name") or f"cron-{number}"): each for number, each in enumerate(triggers, 1)}
            chosen = [name] if name else list(named)
            if not chosen or (name and name not in named):
                raise NotThere(f"{function} has no cron trigger {name}".rstrip())
            for each in chosen:
                named[each]["paused"] = paused
            try:
                await client.update(FUNCTION, document)
                return chosen
            except Conflict:
                if attempt == 4:
                    raise
        return []

    for each in on_cluster(change):
        echo(f"{each} of {function} {'is paused' if paused else 'goes on'}")


def _path(namespace: str, function: str, name: str) -> str:
    """Of the trigger; of the only one where no name is given."""
    if not name:
        query = urlencode({"namespace": namespace, "function": function})
        items = gateway().system("GET", f"/system/cron?{query}")["items"]
        if len(items) != 1:
            have = ", ".join(each["name"] for each in items) or "none"
            raise (Usage if items else NotThere)(f"which trigger of {function}? It has {have}")
        name = items[0]["name"]
    return "/system/cron/" + "/".join(quote(each, safe="") for each in (namespace, function, name))


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Usage(f"--payload is not JSON: {error}") from None
