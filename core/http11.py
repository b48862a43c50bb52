"""The parts of uvicorn that serve here, without its package's `__init__`: that is its command line, with click and multiprocessing, in every process
of the platform. It runs when somebody asks the package for a name of its own.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from typing import Any

__all__ = ["Config", "FlowControl", "HttpToolsProtocol", "RequestResponseCycle", "ServerState"]


def _late(package: str) -> None:
    """Let modules of `package` be imported, and its own contents later. Nothing where it has been imported already."""
    spec = find_spec(package) if package not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    loader, module = spec.loader, module_from_spec(spec)

    def load(name: str) -> Any:
        if name.startswith("__") or "__getattr__" not in vars(module):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        del vars(module)["__getattr__"]
        loader.exec_module(module)
        return getattr(module, name)

    vars(module)["__getattr__"] = load
    sys.modules[package] = module


_late("uvicorn")

from uvicorn.config import Config  # noqa: E402
from uvicorn.protocols.http.flow_control import FlowControl  # noqa: E402
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle  # noqa: E402
from uvicorn.server import ServerState  # noqa: E402
