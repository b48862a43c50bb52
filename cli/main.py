"""The command line's root: what there is, and how a failure ends."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cli import (
    calls,
    certs,
    cron,
    deploy,
    dev,
    diff,
    functions,
    identity,
    images,
    invoke,
    keys,
    login,
    logs,
    namespaces,
    platform,
    revisions,
    secrets,
    shell,
    tokens,
    usage,
    why,
)
from cli.errors import exit_code
from core.errors import FaasliteError

__all__ = ["app", "main"]

app = typer.Typer(
    name="faas",
    help="Deploy functions, call them over HTTP, run them by cron, on a cluster of your own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes and colours would cost a third of the time that the command takes to answer
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"faas {version('faaslite')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What every command has: `--version` ends in its callback."""


for each in (platform, deploy, diff, dev, invoke, functions, logs, shell, revisions, identity, login, why, usage):
    each.register(app)
app.add_typer(cron.app, name="cron")
app.add_typer(calls.app, name="calls")
app.add_typer(secrets.app, name="secret")
app.add_typer(keys.app, name="key")
app.add_typer(tokens.app, name="token")
app.add_typer(certs.app, name="certs")
app.add_typer(namespaces.app, name="namespace")
app.add_typer(images.app, name="images")


def main() -> None:
    """The entry point of `faas`."""
    try:
        app()
    except FaasliteError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(exit_code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
