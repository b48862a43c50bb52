"""`faas namespace`: one per team."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import run
from cli.errors import Usage
from cli.options import Output
from cli.output import Format, age, echo, emit, table
from core.api.kinds import NAMESPACE
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["app"]

app = typer.Typer(help="Namespaces, one per team.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    name: str,
    cpu: Annotated[str, typer.Option(help="CPU that the team's instances may ask for together, such as 4.")] = "",
    memory: Annotated[str, typer.Option(help="Memory likewise, such as 8Gi.")] = "",
    pods: Annotated[int | None, typer.Option(help="Instances at most.", min=0)] = None,
    functions: Annotated[int | None, typer.Option(help="Functions at most.", min=0)] = None,
) -> None:
    """Make a team's namespace: with its bounds, a `ci` account, and a network policy."""
    from core.api.quantity import parse
    from faaslite.api.tenancy import team_documents

    for flag, amount in (("--cpu", cpu), ("--memory", memory)):
        try:
            parse(amount or "0")
        except ValueError as error:
            raise Usage(f"{flag} {amount!r} is not a quantity: write it like 4, 500m or 8Gi") from error

    async def make(client: Client) -> None:
        for kind, document in team_documents(name, cpu=cpu, memory=memory, pods=pods, functions=functions):
            await client.create(kind, document, "" if kind is NAMESPACE else name)

    run(make)
    bounds = ", ".join(
        f"{what} {value}"
        for what, value in (("cpu", cpu), ("memory", memory), ("pods", pods), ("functions", functions))
        if value not in ("", None)
    )
    echo(
        f"namespace {name} created{f' with {bounds}' if bounds else ''}; deploy into it with `faas deploy PATH -n {name}`"
    )


@app.command("list")
def list_(output: Output = Format.table) -> None:
    """List namespaces."""
    items: list[Document] = run(lambda client: client.list(NAMESPACE))[0]
    if output is not Format.table:
        emit(items, output)
        return
    now = time.time()
    rows = [
        (
            each["metadata"]["name"],
            each.get("status", {}).get("phase", ""),
            age(each["metadata"].get("creationTimestamp"), now),
        )
        for each in items
    ]
    table(("NAME", "STATUS", "AGE"), rows)


@app.command()
def delete(name: str) -> None:
    """Delete a namespace with everything in it."""
    run(lambda client: client.delete(NAMESPACE, name))
    echo(f"namespace {name} is being deleted, with everything in it")
