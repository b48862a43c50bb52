"""`faas key`: keys that open functions whose visibility is `key`."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.context import run
from cli.errors import NotThere, Usage
from cli.options import Namespace, Output
from cli.output import Format, age, echo, emit, note, table
from core.api.kinds import SECRET
from core.api.meta import Document

__all__ = ["app"]

app = typer.Typer(help="Keys that open functions whose visibility is key.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="What the key is called.")]


@app.command()
def create(
    name: Name,
    function: Annotated[
        list[str] | None, typer.Option("--function", help="What it opens; may be repeated.", show_default="all")
    ] = None,
    expires: Annotated[
        str, typer.Option(help="How long it is good, such as 12h or 720h.", show_default="for ever")
    ] = "",
    namespace: Namespace = "default",
    output: Output = Format.table,
) -> None:
    """Make a key and print it. It is shown this once; the cluster keeps its hash."""
    from faaslite.api.durations import parse_duration
    from faaslite.api.names import LABEL_KEY

    until = ""
    if expires:
        try:
            until = datetime.fromtimestamp(time.time() + parse_duration(expires), UTC).isoformat(timespec="seconds")
        except ValueError as error:
            raise Usage(f"--expires: {error}") from error
    key = "fk_" + secrets.token_urlsafe(32)
    values = {
        "hash": hashlib.sha256(key.encode()).hexdigest(),
        "functions": ",".join(function or ["*"]),
        "expires": until,
    }
    document = {
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_KEY: "true"}},
        "type": "faaslite.dev/key",
        "data": {field: base64.b64encode(text.encode()).decode() for field, text in values.items()},
    }
    run(lambda client: client.create(SECRET, document, namespace))
    if output is not Format.table:
        emit({"name": name, "namespace": namespace, "key": key, "expires": until or None}, output)
        return
    echo(key)
    note(f"send it as X-Faaslite-Key: KEY, or Authorization: Bearer KEY; it opens {values['functions']} in {namespace}")


@app.command("list")
def list_(namespace: Namespace = "default", output: Output = Format.table) -> None:
    """List keys: names and what they open, never the keys."""
    found = [_described(each) for each in _keys(namespace)]
    if output is not Format.table:
        emit(found, output)
        return
    now = time.time()
    rows = [(each["name"], each["functions"], each["expires"] or "never", age(each["created"], now)) for each in found]
    table(
        ("NAME", "FUNCTIONS", "EXPIRES", "AGE"), rows, f"no keys in {namespace}; make one with `faas key create NAME`"
    )


@app.command()
def delete(names: Annotated[list[str], typer.Argument(help="Keys.")], namespace: Namespace = "default") -> None:
    """Delete keys: they open nothing any more."""
    known = {each["metadata"]["name"] for each in _keys(namespace)}
    for name in names:
        if name not in known:
            raise NotThere(f"there is no key {name} in {namespace}")
        run(lambda client, name=name: client.delete(SECRET, name, namespace))  # type: ignore[misc]
        echo(f"key {name} deleted from {namespace}")


def _keys(namespace: str) -> list[Document]:
    from faaslite.api.names import LABEL_KEY

    items: list[Document] = run(lambda client: client.list(SECRET, namespace, labels=LABEL_KEY))[0]
    return items


def _described(secret: Document) -> dict[str, Any]:
    data = {name: base64.b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}
    return {
        "name": secret["metadata"]["name"],
        "functions": data.get("functions", ""),
        "expires": data.get("expires", ""),
        "created": secret["metadata"]["creationTimestamp"],
    }
