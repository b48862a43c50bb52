"""`faas calls`: the records of calls that the platform made for somebody: by cron, or asynchronously."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.context import gateway
from cli.options import Namespace, Output
from cli.output import Format, echo, emit, table

__all__ = ["app"]

app = typer.Typer(help="Records of asynchronous and cron calls.", no_args_is_help=True)


@app.command("list")
def list_(
    function: Annotated[str, typer.Argument(help="Of one function only.")] = "",
    namespace: Namespace = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    output: Output = Format.table,
) -> None:
    """List call records, newest first."""
    query = {"namespace": namespace, "limit": str(limit), **({"function": function} if function else {})}
    items: list[dict[str, Any]] = gateway().system("GET", f"/system/calls?{urlencode(query)}")["items"]
    if output is not Format.table:
        emit(items, output)
        return
    rows = [
        (
            each["id"],
            each["function"],
            each["trigger"],
            each["status"],
            each.get("attempts", 0),
            each.get("acceptedAt") or "-",
        )
        for each in items
    ]
    table(("CALL", "FUNCTION", "TRIGGER", "STATUS", "ATTEMPTS", "ACCEPTED"), rows, "no calls yet")


@app.command()
def get(call: str, output: Output = Format.table) -> None:
    """Show one call record whole."""
    record: dict[str, Any] = gateway().system("GET", f"/system/calls/{quote(call, safe='')}")
    if output is not Format.table:
        emit(record, output)
        return
    for key, value in record.items():
        if value not in (None, ""):
            echo(f"{key + ':':<14}{value}")
