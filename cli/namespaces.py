"""`faas namespace`: one per team."""

from __future__ import annotations

import time

import typer

from cli.context import run
from cli.options import Output
from cli.output import Format, age, echo, emit, table
from core.api.kinds import NAMESPACE
from core.api.meta import Document

__all__ = ["app"]

app = typer.Typer(help="Namespaces, one per team.", no_args_is_help=True)


@app.command()
def create(name: str) -> None:
    """Make a namespace."""
    run(lambda client: client.create(NAMESPACE, {"metadata": {"name": name}}))
    echo(f"namespace {name} created; deploy into it with `faas deploy PATH -n {name}`")


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
