"""WebSocket frames (RFC 6455) of a server, without I/O: bytes in, messages out.

A library isn't used: the shim's own are few, and off the module path before a function's code is found (`bootstrap.py`).
No extension is offered, so reserved bits are errors.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NamedTuple

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "Message",
    "Parser",
    "Violation",
    "accept_key",
    "close_payload",
    "frame",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_CONTROL = 125
NO_STATUS = 1005
"""What a close frame without a code counts as; never sent."""


class Violation(Exception):
    """The peer broke the protocol; `code` is what the connection is to be closed with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Message(NamedTuple):
    """A whole message: `data` is str for TEXT, else bytes. For CLOSE `code` is set, and `data` is the reason (str)."""

    kind: int
    data: str | bytes
    code: int = 0


def accept_key(key: bytes) -> bytes | None:
    """The answer to a `Sec-WebSocket-Key`; None where it isn't one."""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def frame(kind: int, payload: bytes) -> bytes:
    """One whole frame of a server: unmasked."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | kind, size)) + payload
    if size < 1 << 16:
        return bytes((0x80 | kind, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | kind, 127)) + size.to_bytes(8, "big") + payload


def close_payload(code: int, reason: str) -> bytes:
    """A reason that is too long for a control frame is cut at a character."""
    if code == NO_STATUS:
        return b""
    return code.to_bytes(2, "big") + reason.encode()[: _MAX_CONTROL - 2].decode(errors="ignore").encode()


class Parser:
    """Feed it what a client sends. `limit` is the most bytes that a message may have."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._kind = CONTINUATION
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now. Raises `Violation`; what came before it is lost, as the connection is."""
        self._buffer += data
        found: list[Message] = []
        while (taken := self._take()) is not None:
            final, kind, payload = taken
            message = self._control(kind, payload) if kind >= CLOSE else self._part(final, kind, payload)
            if message is not None:
                found.append(message)
        return found

    def _take(self) -> tuple[bool, int, bytes] | None:
        """The next frame: whether it is the last of its message, its opcode and its payload; None where it isn't all there."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        final, kind, size = bool(buffer[0] & 0x80), buffer[0] & 0x0F, buffer[1] & 0x7F
        if buffer[0] & 0x70 or kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise Violation(1002, "reserved bits or an unknown kind of frame")
        if not buffer[1] & 0x80:
            raise Violation(1002, "frames of a client are masked")
        if kind >= CLOSE and (size > _MAX_CONTROL or not final):
            raise Violation(1002, "control frames are short and whole")
        start = 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            if len(buffer) < 2 + wide:
                return None
            size, start = int.from_bytes(buffer[2 : 2 + wide], "big"), 2 + wide
        if kind < CLOSE and self._size + size > self._limit:
            raise Violation(1009, f"the message is over {self._limit} bytes")
        end = start + 4 + size
        if len(buffer) < end:
            return None
        payload = _unmask(bytes(buffer[start + 4 : end]), bytes(buffer[start : start + 4]))
        del buffer[:end]
        return final, kind, payload

    def _part(self, final: bool, kind: int, payload: bytes) -> Message | None:
        if (kind == CONTINUATION) != (self._kind != CONTINUATION):
            raise Violation(1002, "a message begins before the last one ended, or goes on where none began")
        self._kind = self._kind or kind
        self._parts.append(payload)
        self._size += len(payload)
        if not final:
            return None
        kind, whole = self._kind, b"".join(self._parts)
        self._kind, self._size = CONTINUATION, 0
        self._parts.clear()
        return Message(kind, _text(whole) if kind == TEXT else whole)

    def _control(self, kind: int, payload: bytes) -> Message:
        if kind != CLOSE:
            return Message(kind, payload)
        if not payload:
            return Message(CLOSE, "", NO_STATUS)
        code = int.from_bytes(payload[:2], "big")
        if len(payload) < 2 or not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
            raise Violation(1002, "a close frame with a code that is none")
        return Message(CLOSE, _text(payload[2:]), code)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Violation(1007, "text that is not UTF-8") from None


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
