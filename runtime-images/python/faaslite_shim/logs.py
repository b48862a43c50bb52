"""Standard output and error whose lines carry the id of the call that wrote them."""

from __future__ import annotations

import contextvars
import io
import logging
import os
import sys
import traceback
from typing import Any

__all__ = ["CallLog", "CallStream", "current", "install", "write_traceback"]


class CallLog:
    """The call that runs here: what it has written of a line that isn't ended yet, per stream, and its exchange."""

    __slots__ = ("exchange", "partial", "prefix")

    def __init__(self, call_id: str, exchange: Any = None) -> None:
        self.exchange = exchange
        self.prefix = f"[call {call_id}] " if call_id else ""
        self.partial: dict[int, str] = {}

    def close(self) -> None:
        """Write out what was left without an end of line."""
        if self.partial:
            for descriptor, text in self.partial.items():
                _write(descriptor, f"{self.prefix}{text}\n")
            self.partial.clear()


current: contextvars.ContextVar[CallLog | None] = contextvars.ContextVar("faaslite_call", default=None)


def _write(descriptor: int, text: str) -> None:
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        data = data[os.write(descriptor, data) :]


class CallStream(io.TextIOBase):
    """A text stream over a descriptor; whole lines of calls get their prefix, everything else goes out as it comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    encoding = "utf-8"
    errors = "backslashreplace"

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        call = current.get()
        if call is None or not call.prefix:
            _write(self._descriptor, text)
            return len(text)
        whole, newline, rest = (call.partial.pop(self._descriptor, "") + text).rpartition("\n")
        if newline:
            prefix = call.prefix
            _write(self._descriptor, "".join(f"{prefix}{line}\n" for line in whole.split("\n")))
        if rest:
            call.partial[self._descriptor] = rest
        return len(text)


def install() -> None:
    """Take over the streams and the root logger of this process, once."""
    if isinstance(sys.stdout, CallStream):
        return
    sys.stdout = CallStream(1)
    sys.stderr = CallStream(2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def said(error: BaseException) -> str:
    """The type of an exception and what it says, which is its own code and may fail as well."""
    try:
        text = str(error)
    except Exception:
        text = "it can't say what it is"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def write_traceback(call_id: str, error: BaseException) -> None:
    """The traceback of a failed call, from user code down, each line with the call's id."""
    trace = error.__traceback__
    own = os.path.dirname(__file__)
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(own):
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace)).rstrip("\n").split("\n")
    prefix = f"[call {call_id}] " if call_id else ""
    _write(2, "".join(f"{prefix}{line}\n" for line in lines))
