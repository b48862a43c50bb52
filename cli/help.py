"""What `faas --help` prints, made from the table of commands alone: with typer it would take three times as long.

Laid out as typer lays out the help of every other command.
"""

from __future__ import annotations

from cli.commands import COMMANDS, OPTIONS, PURPOSE

__all__ = ["page", "shorten", "width_of"]

_NARROWEST, _WIDEST = 50, 78
_INDENT, _SPACING = 2, 2


def page(width: int) -> str:
    """The help, in lines of at most `width` columns."""
    names = max(len(name) for name, _, _ in COMMANDS)
    room = width - 3 * _SPACING - names
    purpose = (" " * _INDENT + line for line in _wrapped(PURPOSE, width - _INDENT))
    commands = [(name, shorten(text, room)) for name, _, text in COMMANDS]
    return "\n".join(
        (
            "Usage: faas [OPTIONS] COMMAND [ARGS]...",
            "",
            *purpose,
            "",
            "Options:",
            *_listed(OPTIONS, width),
            "",
            "Commands:",
            *_listed(commands, width),
        )
    )


def width_of(columns: int) -> int:
    """How wide the help is on a terminal of so many columns."""
    return max(min(columns - 2, _WIDEST), _NARROWEST)


def shorten(text: str, room: int) -> str:
    """The first sentence, or as many of its words as have room, and dots."""
    words, length = text.split(), 0
    for count, word in enumerate(words):
        length += len(word) + (count > 0)
        last = count == len(words) - 1
        if length > room or (length == room and not last and not word.endswith(".")):
            break
        if word.endswith(".") or last:
            return " ".join(words[: count + 1])
    while len(" ".join(words[:count])) + 3 > room and count:
        count -= 1
    return " ".join(words[:count]) + "..."


def _listed(rows: tuple[tuple[str, str], ...] | list[tuple[str, str]], width: int) -> list[str]:
    """Names in one column, what they are for beside them."""
    column = max(len(name) for name, _ in rows) + _SPACING
    lines = []
    for name, text in rows:
        first, *more = _wrapped(text, max(width - column - _INDENT, 10))
        lines.append(f"{'':{_INDENT}}{name:{column}}{first}")
        lines += [" " * (_INDENT + column) + line for line in more]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
