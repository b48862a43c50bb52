"""Find the handler in a package and load it, or say in one clear sentence why not."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from functools import cache
from typing import Any

from .logs import said

__all__ = ["StartFailure", "find_module", "load", "take_path"]

MODULES = ("handler", "app", "main", "index")
ATTRIBUTES = ("handle", "handler", "app", "application", "main")


class StartFailure(Exception):
    """The function can't start; the text is for its author."""


def take_path(package: str, layer: str) -> None:
    """Leave the standard library, the package and the layer on the module path, the last two first."""
    standard = _standard()
    sys.path[:] = [package, *([layer] if layer else []), *standard]
    for each in list(sys.path_importer_cache):
        if each not in standard:
            del sys.path_importer_cache[each]


@cache
def _standard() -> tuple[str, ...]:
    """What of the module path is the standard library: it stays where it is, so a zygote finds out for all its children."""
    home = os.path.realpath(os.path.dirname(os.__file__))
    found = [each for each in sys.path if each and _within(os.path.realpath(each), home)]
    return tuple(each for each in found if "site-packages" not in each and "dist-packages" not in each)


def _within(path: str, home: str) -> bool:
    return (
        path == home
        or path.startswith(home + os.sep)
        or (path.startswith(os.path.dirname(home)) and path.endswith(".zip"))
    )


def find_module(package: str) -> str:
    """The module that holds the handler where none is named."""
    try:
        names = sorted(os.listdir(package))
    except OSError as error:
        raise StartFailure(f"the package folder {package} can't be read: {error.strerror}") from error
    for name in MODULES:
        if f"{name}.py" in names or os.path.isfile(os.path.join(package, name, "__init__.py")):
            return name
    files = [each for each in names if each.endswith(".py") and not each.startswith((".", "test_"))]
    if len(files) == 1:
        return files[0][:-3]
    known = ", ".join(f"{each}.py" for each in MODULES)
    found = f"it has {', '.join(files[:5])}" if files else "it has no Python file"
    raise StartFailure(f"no handler found in the package: name one as module:function, or call the file one of {known} ({found})")  # fmt: skip


def load(handler: str, package: str) -> Any:
    """The handler's object. The module path is set already. Raises `StartFailure`."""
    module_name, _, attribute = handler.partition(":")
    module_name = module_name or find_module(package)
    label = f"handler {module_name}:{attribute}" if attribute else f"handler {module_name}"
    module = _import(module_name, label, package)
    _not_shadowed(module, module_name, label, package)
    if not attribute:
        for name in ATTRIBUTES:
            if callable(getattr(module, name, None)):
                return getattr(module, name)
        raise StartFailure(
            f"{_file(module, module_name)} has no function {', '.join(ATTRIBUTES[:-1])} or {ATTRIBUTES[-1]}"
        )
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise StartFailure(f"{label}: {_file(module, module_name)} has no function {attribute}")
        found = getattr(found, name)
    if not callable(found):
        raise StartFailure(
            f"{label}: {attribute} in {_file(module, module_name)} is a {type(found).__name__}, not a function"
        )
    return found


def _import(name: str, label: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        _tell(error, package)
        where = f"{_short(error.filename or '?', package)}:{error.lineno}"
        raise StartFailure(f"{label}: SyntaxError: {error.msg} ({where})") from error
    except ModuleNotFoundError as error:
        _tell(error, package)
        missing = error.name or ""
        own = missing == name or name.startswith(f"{missing}.")
        hint = "is there such a file in the package?" if own else "is it in requirements.txt?"
        raise StartFailure(f"{label}: ModuleNotFoundError: {error} ({hint})") from error
    except SystemExit as error:
        raise StartFailure(f"{label}: the module called sys.exit({error.code!r}) while it was imported{_where(error, package)}") from error  # fmt: skip
    except BaseException as error:
        _tell(error, package)
        raise StartFailure(f"{label}: {said(error).replace(package + os.sep, '')}{_where(error, package)}") from error


def _tell(error: BaseException, package: str) -> None:
    """The traceback for the log, from the package's own code down: how it came to be imported is of no interest."""
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(package):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _not_shadowed(module: Any, name: str, label: str, package: str) -> None:
    """A file of the package that is called like a module which Python has loaded long before is never looked at."""
    top = name.partition(".")[0]
    file = getattr(module, "__file__", None) or ""
    if top in sys.stdlib_module_names and not file.startswith(package + os.sep):
        raise StartFailure(f"{label}: {top} is a module of Python's standard library: give {top}.py another name")


def _where(error: BaseException, package: str) -> str:
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(package)]
    return f" ({_short(frames[-1].filename, package)}:{frames[-1].lineno})" if frames else ""


def _short(path: str, package: str) -> str:
    return os.path.relpath(path, package) if path.startswith(package) else path


def _file(module: Any, name: str) -> str:
    return os.path.basename(getattr(module, "__file__", None) or f"{name}.py")
