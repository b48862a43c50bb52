"""WSGI applications (PEP 3333) as handlers: one call, one environ; the body is streamed where the application streams it."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from .reply import InvalidResponse
from .request import Context, Event

__all__ = ["is_wsgi", "wsgi_handler"]


def is_wsgi(handler: Any) -> bool:
    """Whether `handler` takes (environ, start_response)."""
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(positional) >= 2 and positional[1] == "start_response"


def wsgi_handler(application: Any, concurrent: bool) -> Callable[[Event, Context], Any]:
    """A handler of (event, context) that runs `application`."""

    def handle(event: Event, context: Context) -> Any:
        begun: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], None]:
            if begun and error is None:
                raise AssertionError("start_response was called twice")
            begun[:] = [status, headers]
            return written.append

        parts = application(_environ(event, concurrent), start_response)
        iterator = iter(parts)
        try:
            first = next(iterator, b"")
            if not begun:
                raise InvalidResponse("the application never called start_response")
            status, headers = begun
            code = int(status.split(" ", 1)[0])
            whole = isinstance(parts, (list, tuple)) or any(name.lower() == "content-length" for name, _ in headers)
            if whole or event.method == "HEAD":
                body = b"".join((*written, first, *iterator))
                _close(parts)
                return body or (None if code in (204, 304) else b""), code, headers
        except BaseException:
            _close(parts)
            raise
        return _streamed(written, first, iterator, parts), code, headers

    return handle


def _streamed(written: list[bytes], first: bytes, iterator: Iterator[bytes], parts: Any) -> Iterator[bytes]:
    try:
        yield b"".join((*written, first))
        for each in iterator:
            if each:
                yield each
    finally:
        _close(parts)


def _close(parts: Any) -> None:
    close = getattr(parts, "close", None)
    if close is not None:
        close()


def _environ(event: Event, concurrent: bool) -> dict[str, Any]:
    headers = event.headers
    host, _, port = headers.get("x-forwarded-host", headers.get("host", "localhost")).partition(":")
    scheme = headers.get("x-forwarded-proto", "http")
    path, _, query = event.target.partition(b"?")
    found: dict[str, Any] = {
        "REQUEST_METHOD": event.method,
        "SCRIPT_NAME": headers.get("x-forwarded-prefix", ""),
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": headers.get("x-forwarded-for", "").partition(",")[0].strip(),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(event.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": concurrent,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": str(len(event.body)),
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            found[key] = value
        elif key not in ("CONTENT_LENGTH", "PROXY"):
            found[f"HTTP_{key}"] = value
    return found
