"""Values of options and arguments without pydantic.

typer makes every value with it, which costs most commands more than all that they do. What needs no making (text, a whole number, a path,
one of the words of a choice) is made here; whatever else comes, and so every complaint, is still typer's.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

__all__ = ["lighten"]

_UNMADE = object()


def lighten(command: Any, context: Any) -> None:
    """Let the parameters of a command make simple values simply. Nothing where typer does so itself, as it did before it had pydantic."""
    for parameter in command.get_params(context):
        if getattr(parameter, "_runtime_param", _UNMADE) is None:
            parameter._runtime_param = _Lightly(parameter)


class _Lightly:
    """Stands where typer keeps what makes a parameter's values."""

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value that the command gets. Raises typer's errors."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        described = self._parameter.type_descriptor
        made = _UNMADE if _has_rules(described.parameter_info) else _made(described.annotation, value)
        if made is _UNMADE or not _within(described.parameter_info, made):
            self._parameter._runtime_param = None
            return self._parameter.get_runtime_param().coerce(value, param=param, ctx=ctx)
        return made


def _has_rules(said: Any) -> bool:
    """Whether an option asks more of its values than their type and its bounds do."""
    return bool(
        said.parser or said.exists or said.writable or said.resolve_path
        or said.allow_dash or said.path_type or not said.file_okay or not said.dir_okay
    )  # fmt: skip


def _within(said: Any, value: Any) -> bool:
    """Whether a value keeps an option's bounds; only of single numbers it is known."""
    if said.min is None and said.max is None:
        return True
    if type(value) not in (int, float) or said.clamp:
        return False
    return (said.min is None or value >= said.min) and (said.max is None or value <= said.max)


def _made(annotation: Any, value: Any) -> Any:
    """The value as `annotation`, `_UNMADE` where that isn't plain."""
    if get_origin(annotation) is list:
        if not isinstance(value, list | tuple):
            return _UNMADE
        items = [_made(get_args(annotation)[0], each) for each in value]
        return _UNMADE if any(each is _UNMADE for each in items) else items
    if not isinstance(annotation, type):
        return _UNMADE
    if type(value) is annotation:
        return value
    if not isinstance(value, str):
        return _UNMADE
    if annotation is int and value.isascii() and value.removeprefix("-").isdigit():
        return int(value)
    if issubclass(annotation, Enum):
        return next((each for each in annotation if each.value == value), _UNMADE)
    if annotation is Path and (os.access(value, os.R_OK) or not os.path.lexists(value)):
        return Path(value)
    return _UNMADE
