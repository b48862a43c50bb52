"""The sorts of handlers there are, and how each becomes what `Calls` runs; and the module `faaslite` that user code may import."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import inspect
import sys
from collections.abc import Callable
from typing import Any

from . import sdk
from .asgi import AsgiRunner, is_asgi
from .logs import current
from .openapi import describe
from .reply import Reply, to_reply
from .settings import Settings
from .typed import Typed, is_typed
from .wsgi import is_wsgi, wsgi_handler

__all__ = ["Handler", "offer_sdk", "prepare"]


class Handler:
    """`call` takes (event, context); `runner` runs an ASGI application instead; `describe` is the OpenAPI document as a reply."""

    def __init__(self, call: Any, runner: AsgiRunner | None, describe: Callable[[], Reply]) -> None:
        self.call, self.runner, self.describe = call, runner, describe


def prepare(settings: Settings, handler: Any) -> Handler:
    """Tell what a handler is. Raises `StartFailure`; an event loop runs."""
    typed: Typed | None = None
    runner: AsgiRunner | None = None
    call = handler
    if is_wsgi(handler):
        call = wsgi_handler(handler, settings.concurrency != 1)
    elif is_typed(handler) and not _is_application(handler):
        typed = Typed(handler)
        call = typed.adapted()
    elif is_asgi(handler):
        runner = AsgiRunner(handler)
    return Handler(call, runner, lambda: to_reply(describe(settings, handler, typed)))


def _is_application(handler: Any) -> bool:
    """Whether it is called as ASGI has it, whatever its annotations."""
    if not is_asgi(handler):
        return False
    try:
        names = [each.name for each in inspect.signature(handler).parameters.values()]
    except (TypeError, ValueError):
        return False
    return not inspect.isfunction(handler) or names[:3] == ["scope", "receive", "send"]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `faaslite` where neither the package nor the layer has a module of that name."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self) if name in ("faaslite", "faaslite.sdk") else None

    def create_module(self, spec: Any) -> Any:
        return sdk

    def exec_module(self, module: Any) -> None:
        # The loader's machinery has just put its own names into the module; it stays importable under both.
        module.__path__ = []


def _current_call() -> tuple[str, float | None, str] | None:
    log = current.get()
    exchange = log.exchange if log is not None else None
    if exchange is None:
        return None
    trace = next((value.decode("latin-1") for name, value in exchange.headers if name == b"traceparent"), "")
    return exchange.call_id, exchange.deadline, trace


def offer_sdk() -> None:
    """From now on `import faaslite` is the SDK, and calls that it makes carry on the call that they are made in."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.append(_Finder())
    sdk.current_call = _current_call
