"""The sorts of handlers there are, and how each becomes what `Calls` runs; and the module `faaslite` that user code may import."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from . import sdk
from .asgi import AsgiRunner, is_asgi
from .logs import current
from .reply import Reply, to_reply
from .settings import Settings
from .wsgi import is_wsgi, wsgi_handler

__all__ = ["LATER", "Handler", "is_plain", "is_typed", "offer_sdk", "prepare"]

LATER = ("faaslite_shim.typed", "faaslite_shim.openapi", "faaslite_shim.websocket")
"""What only some functions need: imported when one does, and by zygotes beforehand."""


class Handler:
    """`call` takes (event, context); `runner` runs an ASGI application instead; `describe` is the OpenAPI document as a reply."""

    def __init__(self, call: Any, runner: AsgiRunner | None, describe: Callable[[], Reply]) -> None:
        self.call, self.runner, self.describe = call, runner, describe


def is_typed(handler: Any) -> bool:
    """Whether a handler takes anything but (event, context)."""
    try:
        parameters = [
            each for each in inspect.signature(handler).parameters.values() if each.kind is not each.VAR_KEYWORD
        ]
    except (TypeError, ValueError):
        return False
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return False
    if all(each.annotation is each.empty for each in parameters):
        return len(parameters) > 2 and any(each.default is each.empty for each in parameters[2:])
    places = enumerate(parameters)
    return not all(
        _untyped(each, ("event", "context")[at]) if at < 2 else each.default is not each.empty for at, each in places
    )


def _untyped(parameter: inspect.Parameter, role: str) -> bool:
    """Whether an annotation leaves a parameter what it is by its place."""
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return annotation in (parameter.empty, Any) or name.rpartition(".")[2] in ("Any", "object", role.capitalize())


def is_plain(handler: Any) -> bool:
    """Whether a handler takes (event, context), as most do, which is seen without a signature: making one takes half as long as all else
    about a small function's start."""
    if type(handler) is not types.FunctionType or handler.__annotations__ or handler.__dict__:
        return False
    code = handler.__code__
    variable = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    return (
        code.co_argcount == 2
        and not code.co_kwonlyargcount
        and not variable
        and code.co_varnames[1] != "start_response"
    )


def prepare(settings: Settings, handler: Any) -> Handler:
    """Tell what a handler is. Raises `StartFailure`; an event loop runs."""
    typed: Any = None
    runner: AsgiRunner | None = None
    call = handler
    if is_plain(handler):
        pass
    elif is_wsgi(handler):
        call = wsgi_handler(handler, settings.concurrency != 1)
    elif is_typed(handler) and not _is_application(handler):
        from .typed import Typed

        typed = Typed(handler)
        call = typed.adapted()
    elif is_asgi(handler):
        runner = AsgiRunner(handler, settings.max_body or 1 << 62)

    def described() -> Reply:
        from .openapi import describe

        return to_reply(describe(settings, handler, typed))

    return Handler(call, runner, described)


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
