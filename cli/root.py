"""The root of the command line. A command's module is imported when the command is run, or asked for its help."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from cli.commands import COMMANDS, HELP_NAMES, PURPOSE
from cli.help import page
from cli.values import lighten

__all__ = ["app", "load"]


class _Root(TyperGroup):
    """Lists commands by their lines in the table, and puts the real one in the place of the one that is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, _, text in COMMANDS:
            self.add_command(TyperCommand(name, help=text, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        command = listed and load(str(name))
        for each in (command, *getattr(command, "commands", {}).values()):
            if each is not None:
                lighten(each, ctx)
        return name, command, rest

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lighten(self, ctx)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(page(formatter.width))


def load(name: str) -> Any:
    """The command, or the group of commands, that has this name in the table."""
    module = import_module(f"cli.{next(module for each, module, _ in COMMANDS if each == name)}")
    if found := getattr(module, "app", None):
        group = get_group(found)
        group.name = name
        return group
    holder = typer.Typer(rich_markup_mode=None)
    module.register(holder)
    return get_group(holder).commands[name]


app = typer.Typer(
    name="faas",
    cls=_Root,
    help=PURPOSE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes and colours would cost a third of the time that the command takes to answer
    context_settings={"help_option_names": list(HELP_NAMES)},
)


def _print_version(asked: bool) -> None:
    if asked:
        from core import __version__

        typer.echo(f"faas {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What every command has: `--version` ends in its callback."""
