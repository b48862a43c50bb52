"""What a package imports, so that a zygote can import it before the package's functions are called for."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from .discovery import take_path

__all__ = ["imports_of", "preload", "wanted"]

MAX_FILES, MAX_BYTES = 200, 2 << 20
_UNWANTED = frozenset(
    {"antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo", "lib2to3", "test", "__main__"}
)
_SINGLE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def imports_of(source: bytes) -> set[str]:
    """The absolute names that a module imports when it is loaded, not those within functions. Empty where it doesn't parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    found: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level and node.module:
                found.add(node.module)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]
            pending += [each for handler in getattr(node, "handlers", ()) for each in handler.body]
    return found


def _sources(package: str) -> list[bytes]:
    found: list[bytes] = []
    size = 0
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(each for each in folders if not each.startswith((".", "__")) and each != "tests")
        for name in sorted(names):
            if name.endswith(".py") and len(found) < MAX_FILES and size < MAX_BYTES:
                try:
                    with open(os.path.join(folder, name), "rb") as file:
                        found.append(file.read(MAX_BYTES - size))
                except OSError:
                    continue
                size += len(found[-1])
    return found


def _has(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    if os.path.isdir(path) or os.path.isfile(f"{path}.py"):
        return True
    try:
        return any(each.startswith(f"{name}.") and each.endswith(".so") for each in os.listdir(folder))
    except OSError:
        return False


def wanted(package: str) -> set[str]:
    """What the modules of a package import when they are loaded."""
    return {name for source in _sources(package) for name in imports_of(source)}


def preload(names: Iterable[str] | None, package: str, layer: str) -> dict[str, Any]:
    """Import those of `names` that are of the standard library or of `layer` ("" for none), never the package itself.

    Returns the names imported, those that failed with why, and how many threads there are afterwards: a fork takes along only one.
    """
    imported, failed = [], {}
    before = {each: os.environ.get(each) for each in _SINGLE_THREAD}
    os.environ.update(dict.fromkeys(_SINGLE_THREAD, "1"))
    take_path(layer or os.path.dirname(os.__file__), "")
    try:
        for name in sorted(names or ()):
            top = name.partition(".")[0]
            if name in sys.modules or top in _UNWANTED or _has(package, top):
                continue
            if top in sys.stdlib_module_names or (layer and _has(layer, top)):
                try:
                    importlib.import_module(name)
                    imported.append(name)
                except BaseException as error:
                    failed[name] = f"{type(error).__name__}: {error}"
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
    return {"imported": imported, "failed": failed, "threads": max(threading.active_count(), _kernel_threads())}


def _kernel_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1
