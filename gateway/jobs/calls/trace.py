"""W3C trace context of calls: which trace a call is in, and what a tracer is told of its executions.

A call that came with a `traceparent` goes on in that trace; one without has a trace of its own, whose id is the call's (or its hash). So
every retry of a call, whichever process makes it, is in one trace.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import NamedTuple, Protocol

from gateway.jobs.calls.base import Claimed, Options, Try

__all__ = ["Context", "NoTracing", "Span", "Tracing", "context_of", "parse", "root_span"]

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_HEX = re.compile(r"[0-9a-f]{32}")


class Context(NamedTuple):
    """`trace` 32 and `parent` 16 hex digits; `parent` is empty for a trace of our own."""

    trace: str
    parent: str
    sampled: bool

    def traceparent(self, span: str) -> str:
        return f"00-{self.trace}-{span}-{'01' if self.sampled else '00'}"


class Span(Protocol):
    """One execution. `traceparent` is what the function gets."""

    @property
    def traceparent(self) -> str: ...

    def end(self, this: Try, status: str) -> None:
        """`status` is the call's end, "" where it will be tried again."""


class Tracing(Protocol):
    def begin(self, call: Claimed, now: float) -> Span: ...


def parse(text: str) -> Context | None:
    """None where it isn't a valid `traceparent` (https://www.w3.org/TR/trace-context/)."""
    found = _TRACEPARENT.fullmatch(text)
    if found is None or set(found[1]) == {"0"} or set(found[2]) == {"0"} or text.startswith("ff"):
        return None
    return Context(found[1], found[2], bool(int(found[3], 16) & 1))


def context_of(call: str, options: Options) -> Context:
    """The trace that this call's executions belong to."""
    if options.traceparent and (given := parse(options.traceparent)) is not None:
        return given
    own = call if _HEX.fullmatch(call) and call.strip("0") else _digest(call, 16)
    return Context(own, "", True)


def root_span(call: str) -> str:
    """The span that stands for the call as a whole, the same in every process."""
    return _digest(f"span {call}", 8)


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


class NoTracing:
    """Passes the context on, and tells nobody."""

    def begin(self, call: Claimed, now: float) -> Span:
        span = f"{random.getrandbits(64) or 1:016x}"
        return _Quiet(context_of(call.id, call.options).traceparent(span))


class _Quiet(NamedTuple):
    traceparent: str

    def end(self, this: Try, status: str) -> None:
        """Nobody asked."""
