"""`faas secret`: what functions may read below `/var/run/secrets/faaslite/NAME/`. Versions are `rotation`'s."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Annotated

import typer

from cli import rotation
from cli.context import home_folder, run
from cli.errors import CliError, TimedOut, Usage
from cli.options import DataDir, Namespace, Output
from cli.output import Format, age, echo, emit, table
from core.api.kinds import SECRET
from core.api.meta import Document

__all__ = ["app", "said"]

_ROTATION_SECONDS = 60.0

app = typer.Typer(help="Secrets that functions read as files.", no_args_is_help=True, rich_markup_mode=None)


Literals = Annotated[list[str] | None, typer.Option("--from-literal", help="KEY=VALUE; may be repeated.")]
Files = Annotated[list[str] | None, typer.Option("--from-file", help="[KEY=]PATH; may be repeated.")]


def said(literals: list[str] | None, files: list[str] | None) -> dict[str, str]:
    """The keys and values (base64) that the options say. No message says a value."""
    data: dict[str, str] = {}
    for each in literals or ():
        key, separator, value = each.partition("=")
        if not separator or not key:
            raise Usage(f"--from-literal {key if separator else '...'!r} is not KEY=VALUE")
        data[key] = base64.b64encode(value.encode()).decode()
    for each in files or ():
        key, separator, path = each.partition("=")
        file = Path(path if separator else each)
        try:
            data[key if separator else file.name] = base64.b64encode(file.read_bytes()).decode()
        except OSError as error:
            raise Usage(f"--from-file {file}: {error.strerror}") from error
    if not data:
        raise Usage("a secret needs --from-literal KEY=VALUE or --from-file PATH")
    return data


@app.command()
def create(name: str, from_literal: Literals = None, from_file: Files = None, namespace: Namespace = "default") -> None:
    """Make a secret from values and files."""
    data = said(from_literal, from_file)
    document = {"metadata": {"name": name, "namespace": namespace}, "type": "Opaque", "data": data}
    run(lambda client: client.create(SECRET, document, namespace))
    echo(f"secret {name} created in {namespace}; give it to a function with `faas deploy PATH --secret {name}`")


@app.command("list")
def list_(namespace: Namespace = "default", output: Output = Format.table) -> None:
    """List secrets: names, keys and versions, never values."""
    from faaslite.api.names import LABEL_VERSION_OF
    from faaslite.api.versions import current_of

    every: list[Document] = run(lambda client: client.list(SECRET, namespace))[0]
    items = [each for each in every if LABEL_VERSION_OF not in (each["metadata"].get("labels") or {})]
    if output is not Format.table:
        shown = [
            {
                "name": each["metadata"]["name"],
                "type": each.get("type"),
                "keys": sorted(each.get("data") or {}),
                "version": current_of(each) or None,
            }
            for each in items
        ]
        emit(shown, output)
        return
    now = time.time()
    rows = [
        (
            each["metadata"]["name"],
            each.get("type", ""),
            ",".join(sorted(each.get("data") or {})),
            current_of(each) or "-",
            age(each["metadata"].get("creationTimestamp"), now),
        )
        for each in items
    ]
    table(
        ("NAME", "TYPE", "KEYS", "VERSION", "AGE"),
        rows,
        f"no secrets in {namespace}; make one with `faas secret create`",
    )


@app.command()
def delete(name: str, namespace: Namespace = "default") -> None:
    """Delete a secret with its versions; functions that name it keep what they have until their next start."""
    run(lambda client: client.delete(SECRET, name, namespace))
    echo(f"secret {name} deleted from {namespace}")


@app.command("rotate-key")
def rotate_key(data_dir: DataDir = None) -> None:
    """Make new keys for the encryption of secrets and of queued calls at rest, and write them all again with these."""
    from faaslite.launch.control import ask
    from faaslite.launch.encryption import add_key, rotated, rotation_over
    from faaslite.launch.errors import NotRunning
    from faaslite.launch.home import Home

    home = Home(home_folder(data_dir))
    if not home.encryption_keys.exists():
        raise NotRunning(f"there is no cluster in {home.path} yet; start one with `faas up`")
    files = {home.encryption_keys: ("secret", "core"), home.calls_keys: ("queued call", "jobs")}
    made = {each: add_key(each) for each in files if each.exists()}
    try:
        answer = ask(home, "rotate-key")
    except NotRunning:
        echo("the new keys are used from the next `faas up` on")
        return
    if "error" in answer:
        raise CliError(f"{answer['error']}; the new keys are used from the next start on")
    deadline = time.monotonic() + _ROTATION_SECONDS
    for keys, primary in made.items():
        what, process = files[keys]
        while not rotation_over(keys, primary):
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"not every {what} is written again after {_ROTATION_SECONDS:.0f} s; see {home.component_log(process)}"
                )
            time.sleep(0.05)
        if not rotated(keys, primary):
            raise CliError(f"{what}s keep the key they have; {home.component_log(process)} says why")
        echo(f"every {what} is encrypted with the new key {primary}; the old one is gone")


rotation.register(app)
