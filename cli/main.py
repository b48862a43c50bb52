"""The entry point of `faas`: what can be said at once is said at once, all else is the command's own."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

_COMPLETE = "_FAAS_COMPLETE"


def main() -> None:
    """`faas`. The page of help and the version need nothing imported; a command imports what it needs."""
    if _COMPLETE not in os.environ and _answered(sys.argv[1:]):
        return
    from core.errors import FaasliteError

    try:
        _run()
    except FaasliteError as error:
        from cli.errors import exit_code

        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(exit_code(error))
    except BrokenPipeError:
        _forget_output()
        sys.exit(141)


def _answered(words: list[str]) -> bool:
    """Whether it was the version or the help that was asked for, which are printed then. Ends with exit code 2 where nothing was said."""
    from cli.commands import HELP_NAMES

    if words == ["--version"]:
        from core import __version__

        text = f"faas {__version__}"
    elif not words or (len(words) == 1 and words[0] in HELP_NAMES):
        from cli.help import page, width_of

        text = page(width_of(_columns()))
    else:
        return False
    if not words:
        sys.stderr.write(text + "\n")
        sys.exit(2)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        sys.exit(141)
    return True


def _columns() -> int:
    """Of the terminal, as shutil finds it, which costs more to import than all of this."""
    try:
        return int(os.environ["COLUMNS"]) or 80
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80 if sys.__stdout__ else 80
    except (OSError, ValueError):
        return 80


def _run() -> None:
    if _COMPLETE in os.environ:
        # typer would render every line with rich for the sake of its markup, of which ours have none.
        sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from cli.root import app

    app()


def _forget_output() -> None:
    """Nobody reads it, and Python would complain of that once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
