"""`faas cron`: what runs when, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cli.context import gateway
from cli.options import AllNamespaces, Namespace, Output
from cli.output import Format, emit, table

__all__ = ["app"]

app = typer.Typer(help="Cron triggers of functions.", no_args_is_help=True)


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


@app.command()
def history(
    function: str,
    namespace: Namespace = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs, newest first.")] = 20,
    output: Output = Format.table,
) -> None:
    """List the runs that cron started."""
    query = urlencode({"namespace": namespace, "function": function, "trigger": "cron", "limit": limit})
    items: list[dict[str, Any]] = gateway().system("GET", f"/system/calls?{query}")["items"]
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
        )
        for each in items
    ]
    table(("CRON", "SCHEDULED", "STATUS", "HTTP", "ATTEMPTS", "CALL"), rows, f"cron has not called {function} yet")
