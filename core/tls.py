"""TLS of a server's connections, in memory over the event loop's plain transport.

uvloop has TLS of its own, which takes about half again as long for a short write, keeps what is written until the end of the turn, and holds a
buffer of 256 KiB for each connection. Here what a client is sent is enciphered and handed to its socket at once; only what the
socket doesn't take is left to the transport. What a protocol writes in one turn of the event loop (a reply's head and body) goes into one record.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from typing import Any, cast

__all__ = ["Secured"]

HANDSHAKE = 10.0
"""Seconds in which a client has to finish it."""
LINGER = 5.0
"""Seconds that a client has to close its side, too. Closing while it still sends would reset the connection, and take the reply's end from it."""
_RECORD = 1 << 14
"""Bytes of plain text in a record at most."""


class Secured(asyncio.Transport, asyncio.Protocol):
    """One connection: the protocol of a plain transport, and the transport of the protocol that `make` gives it after the handshake.

    `known` holds it for as long as there is a connection: who ends the server aborts what is in there.
    """

    __slots__ = (
        "_below", "_closing", "_context", "_descriptor", "_incoming", "_known", "_loop", "_make", "_outgoing", "_paused", "_pieces",
        "_protocol", "_timer", "_tls",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.BaseProtocol],
        known: set[Secured],
    ) -> None:
        self._loop = loop
        self._context = context
        self._make = make
        self._known = known
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._protocol: asyncio.Protocol | None = None
        self._below: asyncio.Transport
        self._descriptor = -1
        self._timer: asyncio.TimerHandle | None = None
        self._pieces: list[bytes] = []
        self._paused = self._closing = False

    # The protocol of the plain transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._known.add(self)
        self._timer = self._loop.call_later(HANDSHAKE, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._incoming.write(data)
        if self._protocol is None:
            self._shake_hands()
        else:
            self._read()

    def eof_received(self) -> None:
        """The client closed the connection without saying so in TLS, which many do: the transport closes itself."""

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._known.discard(self)
        self._forget_timer()
        self._pieces.clear()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._pass_on()
            return
        except (ssl.SSLError, ssl.CertificateError):
            self._fail()
            return
        self._forget_timer()
        self._protocol = cast(asyncio.Protocol, self._make())
        self._pass_on()
        self._protocol.connection_made(self)
        if self._incoming.pending:
            self._read()

    def _read(self) -> None:
        """Give the protocol what has come, until it has enough."""
        read, incoming = self._tls.read, self._incoming
        try:
            while not self._paused and not self._closing and self._protocol is not None:
                data = read(_RECORD)
                if not data:  # the client says that it sends no more
                    self._protocol.eof_received()
                    self.close()
                    break
                self._protocol.data_received(data)
                if not incoming.pending:
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._fail()
        if self._outgoing.pending:
            self._pass_on()

    def _fail(self) -> None:
        """Tell the client what it did wrong, and end."""
        self._pass_on()
        self._closing = True
        self._below.close()

    # The transport of the protocol above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it with whatever else is written in this turn of the event loop."""
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(bytes(data))

    def flush(self) -> None:
        """Send what was written, now."""
        if self._pieces:
            self.send(b"")

    def send(self, data: bytes) -> None:
        """Send it now, behind what was written."""
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces = []
        if self._closing or not data:
            return
        try:
            sent = self._tls.write(data)
            if sent < len(data):  # a record is as much as is taken at once
                rest = memoryview(data)
                while sent < len(data):
                    sent += self._tls.write(rest[sent:])
        except ssl.SSLError:
            self.abort()
            return
        self._pass_on()

    def _pass_on(self) -> None:
        """Hand what TLS has to send to the socket, or to the transport where something waits for it, or it takes no more."""
        data, below = self._outgoing.read(), self._below
        if below.is_closing() or not data:
            return
        sent = 0
        if not below.get_write_buffer_size():
            try:
                sent = os.write(self._descriptor, data)
            except OSError:
                sent = 0  # it is full, or broken: then the transport finds out the same
        if sent < len(data):
            below.write(data[sent:])

    def close(self) -> None:
        """Send what was written, say that it was all, and wait a little for the client to close its side."""
        if self._closing or self._below.is_closing():
            return
        self.flush()
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # the client's own word isn't there yet
            self._tls.unwrap()
        self._pass_on()
        self._timer = self._loop.call_later(LINGER, self.abort)
        self._below.resume_reading()
        if self._below.can_write_eof():
            with contextlib.suppress(OSError):  # the client has gone: there is nobody to tell
                self._below.write_eof()

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        if not self.is_closing():
            self._below.pause_reading()

    def resume_reading(self) -> None:
        if not self._paused or self.is_closing():
            return
        self._paused = False
        self._below.resume_reading()
        if self._incoming.pending:
            self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        return not self._paused and not self.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What asyncio's transports with TLS tell, but for what the `ssl_object` tells itself."""
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._context
        return self._below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size() + sum(map(len, self._pieces))

    def can_write_eof(self) -> bool:
        return False

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
