"""`faas invoke`: call a function and print what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.context import gateway
from cli.errors import CallFailed, NotThere, Usage
from cli.options import Namespace
from cli.output import note

__all__ = ["register"]

_CHUNK = 65536


def register(app: typer.Typer) -> None:
    app.command()(invoke)


def invoke(
    name: Annotated[str, typer.Argument(help="The function.")],
    path: Annotated[str, typer.Argument(help="A path below it, with a query if you like.")] = "",
    data: Annotated[str | None, typer.Option("-d", "--data", help="The body, or - for standard input.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="A file to send as the body.")] = None,
    method: Annotated[
        str, typer.Option("-X", "--method", help="The HTTP method.", show_default="GET, or POST with a body")
    ] = "",
    header: Annotated[list[str] | None, typer.Option("-H", "--header", help="'Name: value'; may be repeated.")] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show status and headers on standard error.")
    ] = False,
    namespace: Namespace = "default",
) -> None:
    """Call a function; its reply goes to standard output, and a status of 400 or more ends with exit code 1."""
    body = _body(data, file)
    target = gateway()
    where = target.function_url(namespace, name, path)
    with target.request(
        method.upper() or ("GET" if body is None else "POST"),
        where[len(target.url) :],
        body=body,
        headers={**target.credentials, **_headers(header or [])},
    ) as response:
        if verbose:
            note(f"HTTP {response.status} {response.reason}")
            for key, value in response.getheaders():
                note(f"{key}: {value}")
        while chunk := response.read1(_CHUNK):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        if sys.stdout.isatty():
            sys.stdout.write("\n")
        if response.status >= 400:
            call = response.getheader("X-Call-Id")
            found = NotThere if response.status == 404 else CallFailed
            raise found(f"{name} answered {response.status} {response.reason}{f' (call {call})' if call else ''}")


def _body(data: str | None, file: Path | None) -> bytes | None:
    if data is not None and file is not None:
        raise Usage("give the body with -d or with -f, not both")
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise Usage(f"-f {file}: {error.strerror}") from error
    if data == "-":
        return sys.stdin.buffer.read()
    return None if data is None else data.encode()


def _headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        key, separator, value = line.partition(":")
        if not separator or not key.strip():
            raise Usage(f"-H {line!r} is not 'Name: value'")
        try:
            line.encode("latin-1")
        except UnicodeEncodeError:
            raise Usage(f"-H {line!r} has characters that headers can't have") from None
        headers[key.strip()] = value.strip()
    return headers
