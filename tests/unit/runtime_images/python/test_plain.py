"""The short look at plain handlers says what the long one says."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[4] / "runtime-images" / "python"))

from faaslite_shim.asgi import is_asgi
from faaslite_shim.calls import _adapt
from faaslite_shim.handlers import is_plain, is_typed
from faaslite_shim.wsgi import is_wsgi


def two(event, context): ...
async def two_async(event, context): ...
def other_names(a, b): ...
def with_default(event, context=None): ...
def one(event): ...
def none(): ...
def three(event, context, more=1): ...
def keyword(event, context, *, more=1): ...
def catching(event, context, **rest): ...
def spread(*arguments): ...
def typed(event: int, context): ...
def untyped(event: Any, context: Any): ...
def wsgi(environ, start_response): ...
async def asgi(scope, receive, send): ...
@functools.wraps(typed)
def wrapped(event, context): ...


class Callable:
    def __call__(self, event, context): ...


HANDLERS = [
    two, two_async, other_names, with_default, one, none, three, keyword, catching, spread, typed, untyped, wsgi, asgi, wrapped, Callable(),
    Callable().__call__, functools.partial(three, more=2), lambda event, context: None, len,
]  # fmt: skip


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda each: getattr(each, "__name__", type(each).__name__))
def test_what_is_plain_is_nothing_else(handler: Any) -> None:
    if is_plain(handler):
        assert not is_wsgi(handler) and not is_typed(handler) and not is_asgi(handler)
        assert _adapt(handler) is handler


def test_most_handlers_are_plain() -> None:
    plain = [each for each in HANDLERS if is_plain(each)]
    assert plain == [two, two_async, other_names, with_default, HANDLERS[-2]]


def test_handlers_that_take_less_get_less() -> None:
    seen: list[tuple[Any, ...]] = []
    for handler in (lambda: seen.append(()), lambda event: seen.append((event,)), lambda a, b: seen.append((a, b))):
        _adapt(handler)("event", "context")
    assert seen == [(), ("event",), ("event", "context")]
    assert _adapt(wrapped) is wrapped
