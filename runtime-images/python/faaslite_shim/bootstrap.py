"""Import what the shim stands on, then leave no way from user code to where it came from."""

from __future__ import annotations

import contextlib
import importlib
import sys

__all__ = ["import_libraries"]


def import_libraries(folders: list[str]) -> None:
    """Import httptools, and uvloop if it is there, from `folders`; afterwards these are not on the module path."""
    before = list(sys.path)
    sys.path[:0] = folders
    try:
        importlib.import_module("httptools")
        with contextlib.suppress(ImportError):  # asyncio's own loop does as well, at a lower speed
            importlib.import_module("uvloop")
    finally:
        sys.path[:] = before
        for folder in folders:
            sys.path_importer_cache.pop(folder, None)
